"""`run --engine ray`: the same run over the workers of a Ray cluster.

    driver    a run, from its first worker to the table of who did what
    corpora   the texts of many tasks ► shards, cut where the local engine ends a batch
    pool      hands units of work to workers, replaces those that die, gives up what kills them
    worker    the process on a node: loads a model once, encodes shards, runs tasks
    job       what driver and workers say to each other

A unit of work is a task with a model or, with `--prefill`, a shard of texts. Texts go to the workers through Ray;
vectors and results go from them straight into the shared folders, through the same atomic layer as in the local engine,
so that whatever dies costs the unit it was at.

`driver`, `corpora` and `pool` need Ray; nothing outside this package imports it.
"""

from __future__ import annotations

from importlib.util import find_spec

from stella_mteb.errors import EnvironmentProblem


def require_ray() -> None:
    """Raise an EnvironmentProblem that names the extra, unless Ray is installed."""
    if find_spec("ray") is None:
        raise EnvironmentProblem("--engine ray needs Ray: pip install 'stella-mteb[ray]'")
