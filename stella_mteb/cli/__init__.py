"""The command line: `app`, `display` and `options` are what commands share, every other file is one command."""

from stella_mteb.cli import (  # noqa: F401, I001 -- they register with `app`; the order is that of --help
    bench, compare, demo, judge, rank, validate, models, tasks, verify, doctor, fetch, run, mteb, submit, cache,
)  # fmt: skip
from stella_mteb.cli.app import app, main

__all__ = ["app", "main"]
