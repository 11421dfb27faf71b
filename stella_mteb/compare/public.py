"""MTEB's public results, as a clone of their repository."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from stella_mteb.compare.folder import Facts, read_folder
from stella_mteb.compare.published import task_facts
from stella_mteb.compare.selection import EVERYTHING, Selection
from stella_mteb.compare.sources import Found
from stella_mteb.errors import ConfigError, EnvironmentProblem
from stella_mteb.files.folders import cache_folder
from stella_mteb.files.strict_yaml import COMMIT

PUBLIC_RESULTS = "https://github.com/embeddings-benchmark/results"


def remote_scores(
    models: Sequence[str],
    cache: Path | None = None,
    *,
    revision: str,
    remote: str = PUBLIC_RESULTS,
    selection: Selection = EVERYTHING,
    facts: Facts = task_facts,
) -> Found:
    """The scores of models in MTEB's public results at one commit.

    The first call fetches the files of that commit. While the commit stays the same, later calls ask no network.

    Args:
        models: Specs; only results of these models are read.
        cache: Folder of the clone, as `mteb.ResultCache` takes it; None for one of our own.
        revision: The full commit. It has no default: the results change, and a comparison must say of when they are.
        remote: Where the repository is.
        selection: See `local_scores`.
        facts: See `local_scores`.

    Raises:
        ConfigError: If the revision is no full commit.
        EnvironmentProblem: If the repository is not to be had.
    """
    where = _shown(remote)
    if not re.fullmatch(COMMIT, revision):
        raise ConfigError(
            f"revision {revision!r} of the public results must be a full commit of 40 hexadecimal digits; "
            f"`git ls-remote {where} HEAD` prints the newest"
        )
    folder = (cache or cache_folder() / "public-results") / "remote"
    cure = (
        f"check the network, or clone {where} on a machine that has one, check out {revision} there, "
        "and give that folder as a results folder"
    )
    try:
        _check_out(folder, remote, revision)
    except FileNotFoundError as error:
        raise EnvironmentProblem(f"git is needed for {where} and is not installed; {cure}") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        why = f": {_shown(lines[-1])}" if lines else ""
        raise EnvironmentProblem(f"{where} at {revision} could not be fetched{why}; {cure}") from error
    except OSError as error:
        raise EnvironmentProblem(f"{folder}: {error.strerror or error}") from error
    return read_folder(folder, models, origin=f"{where}@{revision}", selection=selection, facts=facts, of_others=True)


def _check_out(folder: Path, remote: str, revision: str) -> None:
    """Bring a clone to a commit; without the network if it is there already."""
    if not (folder / ".git").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _git(folder, "init", "--quiet")
        _git(folder, "remote", "add", "origin", remote)
    if (other := _git(folder, "config", "--get", "remote.origin.url")) != remote:
        raise EnvironmentProblem(f"{folder} is a clone of {_shown(other)}; remove it, or give another cache")
    if _git(folder, "rev-parse", "--revs-only", "HEAD") != revision:
        _git(folder, "fetch", "--quiet", "--depth", "1", "origin", revision)
        _git(folder, "checkout", "--quiet", "--force", "--detach", revision)


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def _shown(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://", text)  # a token in an address must not get into a report
