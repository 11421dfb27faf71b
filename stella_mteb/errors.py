"""Errors that a user can cause or fix, each with the exit code of the command line.

The text of an error names the file, line or option, and the fix. Any other exception is a bug of this project and
keeps its traceback.
"""

from __future__ import annotations


class StellaMtebError(Exception):
    """Something failed while running; finished work is kept (exit code 1)."""

    exit_code = 1


class ConfigError(StellaMtebError, ValueError):
    """A spec, a configuration file, an option or a data file is invalid (exit code 2)."""

    exit_code = 2


class EnvironmentProblem(StellaMtebError, RuntimeError):
    """The machine lacks weights, network, a package, disk space or memory (exit code 3)."""

    exit_code = 3


class StorageProblem(EnvironmentProblem):
    """Results cannot be written: a full disk, a folder without permission (exit code 3). The run stops."""


class NonFiniteVectorError(StellaMtebError, ValueError):
    """A vector contains NaN or infinity; it is never returned, stored or averaged (exit code 1)."""
