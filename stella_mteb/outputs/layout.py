"""All path rules of an output folder."""

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
    """Return the folder with results: the subfolder `results` of an output folder or clone, or the folder itself."""
    return folder / "results" if (folder / "results").is_dir() else folder


def model_folder(name: str) -> str:
    """Return MTEB's folder name for a model."""
    return name.replace("/", "__").replace(" ", "_")


def result_path(output: Path, model: str, revision: str, experiment: str | None, task: str) -> Path:
    """Return the path of a result, like `mteb.ResultCache.get_task_result_path`, without creating a folder.

    Args:
        output: The output folder.
        model: `organisation/name`.
        revision: Revision of the model.
        experiment: Name of the settings of the run, or None.
        task: Name of the task.
    """
    folder = output / "results" / model_folder(model) / revision
    return (folder / "experiments" / experiment if experiment else folder) / f"{task}.json"


def details_path(result: Path) -> Path | None:
    """Return the path of a result's items, or None if the result is not in MTEB's layout.

    Args:
        result: `<output>/results/<model>/<revision>/[experiments/<name>/]<Task>.json`.
    """
    depth = 4 if result.parent.parent.name == "experiments" else 2
    if len(result.parents) <= depth or result.parents[depth].name != "results":
        return None
    results = result.parents[depth]
    return results.parent / "details" / result.relative_to(results)


def cost_path(result: Path) -> Path | None:
    """Return the path of the costs of a result's model, or None if the result is not in MTEB's layout."""
    path = details_path(result)
    return path and path.with_name("cost.json")


# ------------------------------------------------------------------------------------------------------- checks


def require_inside(path: Path, output: Path) -> None:
    """Require that a path, after following links, stays in the output folder."""
    # realpath, because resolve() raises on a link to itself.
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(output)):
        raise StorageProblem(f"{path}: leads outside {output}; results are only read and written inside it")


def require_writable(folder: Path) -> None:
    """Check before a model is loaded that results can be written to a folder.

    The folder is created if necessary. Leftovers of killed runs are removed.

    Raises:
        StorageProblem: If files cannot be created in it, an entry is not writable or leads outside, or a folder has the
            place of a file; names the entry.
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
    """List a folder recursively; raise StorageProblem for an entry that would stop or misdirect a later write."""
    require_inside(room, output)
    if room.exists() and not room.is_dir():
        raise StorageProblem(f"{room}: is a file but must be a folder; move it")
    for place, folders, files in os.walk(room):
        if not os.access(place, os.W_OK | os.X_OK):
            raise StorageProblem(f"{place}: results cannot be written here: Permission denied")
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink():
                require_inside(path, output)
            if name in folders and path.suffix in {".json", ".jsonl"}:
                raise StorageProblem(f"{path}: is a folder but must be a file; move it")
            yield path
