"""The command line: `app` holds what all commands share, every other file is one command."""

from stella_mteb.cli import bench, cache, compare, demo, judge, models, run, submit
from stella_mteb.cli.app import app, main

__all__ = ["app", "bench", "cache", "compare", "demo", "judge", "main", "models", "run", "submit"]
