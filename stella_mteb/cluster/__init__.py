"""`run --engine ray`: a run on the workers of a Ray cluster.

    driver    conducts a run, and reports what each worker did
    corpora   splits the texts of many tasks into shards, at the ends of the local engine's batches
    pool      gives units of work to workers, replaces workers that die, gives up units that kill them
    worker    the process on a node: loads a model once, encodes shards, runs tasks
    job       the messages between driver and workers

A unit of work is a task with a model or, with `--prefill`, a shard of texts. Texts are sent to the workers by Ray. The
workers write vectors and results directly to the shared folders, with the same atomic writes as the local engine, so a
dead worker costs only its current unit.

`driver`, `corpora` and `pool` need Ray; nothing outside this package imports it.
"""

from __future__ import annotations

from importlib.util import find_spec

from stella_mteb.errors import EnvironmentProblem


def require_ray() -> None:
    """Raise an EnvironmentProblem that names the extra if Ray is not installed."""
    if find_spec("ray") is None:
        raise EnvironmentProblem("--engine ray needs Ray: pip install 'stella-mteb[ray]'")
