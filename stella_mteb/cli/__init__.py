"""The command line. Commands share `app`, `display` and `options`; every other file is one command."""

from stella_mteb.cli import (  # noqa: F401, I001 -- importing registers them with `app`, in the order of --help
    bench, compare, demo, judge, rank, validate, models, tasks, verify, doctor, fetch, run, mteb, submit, cache,
)  # fmt: skip
from stella_mteb.cli.app import app, main

__all__ = ["app", "main"]
