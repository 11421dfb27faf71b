"""Read MTEB's public results from a sparse clone of their repository, with only the files of the named models."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from stella_mteb.compare.folder import Facts, folders_of, read_folder
from stella_mteb.compare.published import task_facts
from stella_mteb.compare.selection import EVERYTHING, Selection
from stella_mteb.compare.sources import Found
from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.folders import cache_folder
from stella_mteb.files.strict_yaml import COMMIT

PUBLIC_RESULTS = "https://github.com/embeddings-benchmark/results"
NEWEST = "HEAD"
_SHORT = "[0-9a-f]{4,39}"


def remote_scores(
    models: Sequence[str],
    cache: Path | None = None,
    *,
    revision: str = NEWEST,
    remote: str = PUBLIC_RESULTS,
    selection: Selection = EVERYTHING,
    facts: Facts = task_facts,
    report: Callable[[str], None] = lambda _: None,
) -> Found:
    """Read the scores of models in MTEB's public results at one commit.

    Missing files are fetched. For a full commit whose files are in the cache, no network is used.

    Args:
        models: Specs; only results of these models are fetched and read.
        cache: Cache folder of the clone, as in `mteb.ResultCache`; None for our own.
        revision: A commit (short or full), a branch, a tag, or the folder of a clone, which is read as checked out; by
            default the newest commit.
        remote: URL of the repository.
        selection: As for `local_scores`.
        facts: As for `local_scores`.
        report: Function that receives a line for each fetch.

    Raises:
        ConfigError: If there is no such revision.
        EnvironmentProblem: If the repository is unavailable, or git is not installed.
    """
    where, folder = _shown(remote), (cache or cache_folder() / "public-results") / "remote"
    if revision and (clone := Path(revision).expanduser()).is_dir():
        where, folder, remote = str(clone), clone, ""
    cure = (
        f"check the network, or clone {where} on a machine with network access, check out the revision, and pass that "
        "folder with --results"
    )
    try:
        commit = _git(folder, "rev-parse", "HEAD") if not remote else _resolved(folder, remote, revision)
        report(f"{where} at {commit}")
        if remote:
            _check_out(folder, commit, models, report)
    except FileNotFoundError as error:
        raise EnvironmentProblem(f"reading {where} needs git, which is not installed; {cure}") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        why = f": {_shown(lines[-1])}" if lines else ""
        raise EnvironmentProblem(f"{where} at {revision} could not be fetched{why}; {cure}") from error
    except OSError as error:
        raise EnvironmentProblem(f"{folder}: {error.strerror or error}") from error
    found = read_folder(folder, models, origin=f"{where}@{commit}", selection=selection, facts=facts, of_others=True)
    return Found(found.rows, found.notes, commit)


def _resolved(folder: Path, remote: str, revision: str) -> str:
    """Resolve a revision to a full commit; only a full commit needs no network."""
    if not (folder / ".git").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _git(folder, "init", "--quiet")
        _git(folder, "remote", "add", "origin", remote)
        _git(folder, "sparse-checkout", "set", "--no-cone")
    if (other := _git(folder, "config", "--get", "remote.origin.url")) != remote:
        raise EnvironmentProblem(f"{folder} is a clone of {_shown(other)}; remove it, or give another cache")
    if re.fullmatch(COMMIT, revision):
        return revision
    listed = [line.split("\t") for line in _git(folder, "ls-remote", "origin").splitlines()]
    commits = {name: commit for commit, name in listed}
    # An annotated tag is a separate object; its commit is listed under the name of the tag with ^{}.
    for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}^{{}}", f"refs/tags/{revision}"):
        if name in commits:
            return commits[name]
    if re.fullmatch(_SHORT, revision):
        _git(folder, "fetch", "--quiet", "--filter=tree:0", "origin", NEWEST)
        if commit := _git(folder, "rev-parse", "--quiet", "--revs-only", f"{revision}^{{commit}}"):
            return commit
    branches = ", ".join(name.removeprefix("refs/heads/") for name in commits if name.startswith("refs/heads/"))
    raise ConfigError(
        f"{_shown(remote)} has no commit, branch or tag {revision!r}, and no folder has this name; its branches are "
        f"{branches}"
    )


def _check_out(folder: Path, commit: str, models: Sequence[str], report: Callable[[str], None]) -> None:
    """Check out a commit with the files of some models; uses the network only for missing files."""
    if _git(folder, "rev-parse", "--revs-only", "HEAD") != commit:
        report("fetching the list of files")
        _git(folder, "fetch", "--quiet", "--depth", "1", "--filter=blob:none", "origin", commit)
        _git(folder, "checkout", "--quiet", "--force", "--detach", commit)
    if _git(folder, "config", "--default", "false", "--get", "core.sparseCheckout") != "true":
        return  # a full clone, made by mteb
    here = set(_git(folder, "sparse-checkout", "list").splitlines())
    for number, model in enumerate(models, 1):
        patterns = {f"/results/{name}/" for name in folders_of(model)}
        if missing := sorted(patterns - here):
            report(f"fetching {model}, {number} of {len(models)}")
            _git(folder, "sparse-checkout", "add", *missing)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def _shown(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)  # a token in an address must not get into a report
