"""Every path rule of an output folder and of the caches."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stella_mteb.errors import StorageProblem
from stella_mteb.files.atomic import remove_leftovers
from stella_mteb.files.locks import OWN_FOLDER

_ROOMS = ("results", "details", "aggregated", "pairs", OWN_FOLDER)


# -------------------------------------------------------------------------------------------------------------- paths


def results_folder(folder: Path) -> Path:
    """Give the folder of MTEB's results that a user means: the output folder's, a clone's, or the folder itself."""
    return folder / "results" if (folder / "results").is_dir() else folder


def model_folder(name: str) -> str:
    """Give the name of a model's folder as MTEB writes it."""
    return name.replace("/", "__").replace(" ", "_")


def result_path(output: Path, model: str, revision: str, experiment: str | None, task: str) -> Path:
    """Give the place of a result, as `mteb.ResultCache.get_task_result_path` does; no folder is made.

    Args:
        output: The output folder.
        model: `organisation/name`.
        revision: Of the model.
        experiment: Name of the settings of the run, or None.
        task: Name of the task.
    """
    folder = output / "results" / model_folder(model) / revision
    return (folder / "experiments" / experiment if experiment else folder) / f"{task}.json"


def details_path(result: Path) -> Path | None:
    """Where the items of a result are kept; None for a path that is not in MTEB's layout.

    Args:
        result: `<output>/results/<model>/<revision>/[experiments/<name>/]<Task>.json`.
    """
    depth = 4 if result.parent.parent.name == "experiments" else 2
    if len(result.parents) <= depth or result.parents[depth].name != "results":
        return None
    results = result.parents[depth]
    return results.parent / "details" / result.relative_to(results)


def cost_path(result: Path) -> Path | None:
    """Where the costs of the model of a result are kept; None for a path that is not in MTEB's layout."""
    path = details_path(result)
    return path and path.with_name("cost.json")


# ------------------------------------------------------------------------------------------------------- checks


def require_inside(path: Path, output: Path) -> None:
    """Raise unless a path, links followed, stays in the output folder."""
    # realpath and not resolve(), which raises on a link that leads to itself.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(output)):
        raise StorageProblem(f"{path}: leads outside {output}; results are read and written inside of it only")


def require_writable(folder: Path) -> None:
    """Raise unless results can be written to a folder; before any model is loaded.

    The folder is made if it is not there. What earlier runs that were killed have left in it is removed.

    Raises:
        StorageProblem: If no files can be made in it, something in it cannot be written or leads outside, or a folder
            stands where a file has to; names the place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=folder, prefix=".probe-")
        os.close(handle)
        Path(probe).unlink()
        for room in _ROOMS:
            remove_leftovers(list(_sound_files(folder / room, folder)))
    except OSError as error:
        raise StorageProblem(f"{folder}: results cannot be written here: {error.strerror or error}") from error


def _sound_files(room: Path, output: Path) -> Iterator[Path]:
    """List a folder and all below it; raise StorageProblem at what would stop or mislead a later write."""
    require_inside(room, output)
    if room.exists() and not room.is_dir():
        raise StorageProblem(f"{room}: a file stands where a folder has to; move it")
    for place, folders, files in os.walk(room):
        if not os.access(place, os.W_OK | os.X_OK):
            raise StorageProblem(f"{place}: results cannot be written here: Permission denied")
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink():
                require_inside(path, output)
            if name in folders and path.suffix in {".json", ".jsonl"}:
                raise StorageProblem(f"{path}: a folder stands where a file has to; move it")
            yield path
