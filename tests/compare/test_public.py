"""MTEB's public results, from a repository like theirs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stella_mteb.compare.folder import local_scores
from stella_mteb.compare.public import remote_scores
from stella_mteb.errors import ConfigError, EnvironmentProblem
from tests.support.result_folders import (
    MINILM,
    RERUN,
    STELLA,
    labelled,
    of_others,
    one,
    our_run,
    result,
)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def public(tmp_path: Path) -> tuple[Path, str, str]:
    """A repository like MTEB's public results, and two commits of it: ArguAna is 0.5 in the first, then 0.6."""
    repository = tmp_path / "public"
    repository.mkdir()
    git(repository, "init", "--quiet")
    commits = []
    for score in (0.5, 0.6):
        result(of_others(repository), "ArguAna", score)
        result(of_others(repository, "someone/else"), "ArguAna", 0.1)
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "-m", "results")
        commits.append(git(repository, "rev-parse", "HEAD"))
    return repository, *commits


@pytest.mark.parametrize("place", [0, 1])
def test_public_results_are_those_of_the_pinned_commit(
    tmp_path: Path, public: tuple[Path, str, str], place: int
) -> None:
    repository, *commits = public

    found = remote_scores([STELLA], tmp_path / "cache", revision=commits[place], remote=str(repository))

    system, scores = one(found)
    assert scores["ArguAna"].value == (0.5, 0.6)[place]
    assert (system.provenance, system.revision) == ("measured by others", RERUN)
    assert system.origin == f"{repository}@{commits[place]}"
    assert "made without template and head" in found.notes_on([system])[0]


def test_another_commit_is_fetched_and_a_cached_one_needs_no_network(
    tmp_path: Path, public: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, first, second = public
    monkeypatch.setenv("STELLA_MTEB_CACHE", str(tmp_path / "own-cache"))

    def score(revision: str) -> float:
        return one(remote_scores(["stella_en_1.5B_v5"], revision=revision, remote=str(repository)))[1]["ArguAna"].value

    assert [score(first), score(second), score(first)] == [0.5, 0.6, 0.5]
    repository.rename(tmp_path / "away")
    assert score(first) == 0.5


def test_output_of_git_never_reaches_stdout(
    tmp_path: Path, public: tuple[Path, str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    repository, first, second = public

    for revision in (first, second):
        remote_scores([STELLA], tmp_path / "cache", revision=revision, remote=str(repository))

    assert capfd.readouterr().out == ""


def test_public_results_of_this_plugin_are_not_shown_as_measured_here(
    tmp_path: Path, public: tuple[Path, str, str]
) -> None:
    repository, *_ = public
    result(our_run(repository), "STS12", 0.8)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "ours")

    system, _ = one(
        remote_scores(
            [MINILM],
            tmp_path / "cache",
            revision=git(repository, "rev-parse", "HEAD"),
            remote=str(repository),
        )
    )

    assert system.provenance == "measured by others"
    assert "embed_dim=384" in system.label


def test_a_branch_a_tag_a_short_commit_and_the_newest_are_resolved_and_stored(
    tmp_path: Path, public: tuple[Path, str, str]
) -> None:
    repository, first, second = public
    git(repository, "tag", "-a", "v1", "-m", "one", first)
    git(repository, "tag", "plain", first)
    git(repository, "branch", "old", first)
    told: list[str] = []

    def commit(revision: str) -> str | None:
        cache = tmp_path / f"cache-{revision}"
        found = remote_scores([STELLA], cache, revision=revision, remote=str(repository), report=told.append)
        assert one(found)[0].origin == f"{repository}@{found.commit}"
        return found.commit

    assert [commit(name) for name in ("HEAD", "v1", "plain", "old", first[:9])] == [second, first, first, first, first]
    assert f"{repository} at {second}" in told


def test_an_unknown_revision_is_an_error_with_the_branches(tmp_path: Path, public: tuple[Path, str, str]) -> None:
    repository, *_ = public
    git(repository, "branch", "old")

    for revision in ("nowhere", "", "0123456", "A" * 40, "0" * 39 + "\n"):
        with pytest.raises(ConfigError, match=r"has no commit, branch or tag .*; its branches are .*old"):
            remote_scores([STELLA], tmp_path / "cache", revision=revision, remote=str(repository))


def test_only_the_files_of_the_named_models_are_fetched_and_others_are_added(
    tmp_path: Path, public: tuple[Path, str, str]
) -> None:
    repository, _, second = public
    git(repository, "config", "uploadpack.allowFilter", "true")

    def fetched(*models: str) -> set[str]:
        remote_scores(models, tmp_path, revision=second, remote=f"file://{repository}")
        return {path.name for path in (tmp_path / "remote" / "results").iterdir()}

    def stored() -> int:
        lines = git(tmp_path / "remote", "cat-file", "--batch-all-objects", "--batch-check", "--unordered").splitlines()
        return sum(line.split()[1] == "blob" for line in lines)

    assert fetched(STELLA) == {"NovaSearch__stella_en_1.5B_v5"}
    of_one = stored()
    assert fetched(STELLA, "someone/else") == {"NovaSearch__stella_en_1.5B_v5", "someone__else"}
    assert of_one < stored()


def test_the_folder_of_a_clone_is_read_as_it_is_checked_out(tmp_path: Path, public: tuple[Path, str, str]) -> None:
    repository, first, _ = public
    git(repository, "checkout", "--quiet", first)

    found = remote_scores([STELLA], tmp_path, revision=str(repository))

    assert one(found)[1]["ArguAna"].value == 0.5
    assert (found.commit, one(found)[0].origin) == (first, f"{repository}@{first}")


def test_a_failed_fetch_is_an_environment_problem_with_the_fix(tmp_path: Path, public: tuple[Path, str, str]) -> None:
    repository, first, _ = public
    cure = "check the network, or clone .* on a machine with network access, .* pass that folder with --results"

    with pytest.raises(EnvironmentProblem, match=f"{'0' * 40} could not be fetched: .*; {cure}"):
        remote_scores([STELLA], tmp_path / "cache", revision="0" * 40, remote=str(repository))
    with pytest.raises(EnvironmentProblem, match=cure):
        remote_scores([STELLA], tmp_path / "other", revision=first, remote=str(tmp_path / "absent"))
    with pytest.raises(EnvironmentProblem, match=r"is a clone of .*public; remove it, or give another cache"):
        remote_scores([STELLA], tmp_path / "cache", revision=first, remote=str(tmp_path / "absent"))


def test_a_token_in_the_address_is_in_no_message_and_no_origin(
    tmp_path: Path, public: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, first, _ = public
    address = "https://me:s3cret@example.invalid/results"
    git(tmp_path, "clone", "--quiet", str(repository), str(tmp_path / "cache" / "remote"))
    git(tmp_path / "cache" / "remote", "checkout", "--quiet", first)
    git(tmp_path / "cache" / "remote", "config", "remote.origin.url", address)
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")

    system, _ = one(remote_scores([STELLA], tmp_path / "cache", revision=first, remote=address))
    with pytest.raises(EnvironmentProblem) as fault:
        remote_scores([STELLA], tmp_path / "cache", revision="0" * 40, remote=address)

    assert system.origin == f"https://example.invalid/results@{first}"
    assert "s3cret" not in str(fault.value)


def test_a_missing_git_and_an_unwritable_cache_are_environment_problems(
    tmp_path: Path, public: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, first, _ = public
    (tmp_path / "file").write_text("")

    with pytest.raises(EnvironmentProblem, match="file"):
        remote_scores([STELLA], tmp_path / "file", revision=first, remote=str(repository))

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match=r"reading .* needs git, which is not installed"):
        remote_scores([STELLA], tmp_path / "cache", revision=first, remote=str(repository))


def test_a_users_clone_can_be_given_as_a_results_folder(public: tuple[Path, str, str]) -> None:
    repository, *_ = public

    found = local_scores(repository, models=[STELLA])

    assert labelled(found) == {f"{STELLA} (measured by others)": {"ArguAna": 0.6}}
