"""The errors a user can cause or cure, each with the exit code of the command line.

An error's text names the file, line or option, and the cure. Anything that is not one of these is a bug of
ours and keeps its traceback.
"""

from __future__ import annotations


class StellaMtebError(Exception):
    """Something ran and failed; nothing that was finished is lost (exit code 1)."""

    exit_code = 1


class ConfigError(StellaMtebError, ValueError):
    """A spec, a configuration file, an option or a data file is wrong (exit code 2)."""

    exit_code = 2


class EnvironmentProblem(StellaMtebError, RuntimeError):
    """The machine lacks something: weights, network, a package, disk or memory (exit code 3)."""

    exit_code = 3


class StorageProblem(EnvironmentProblem):
    """Results cannot be written: a full disk, a folder without permission (exit code 3). Going on would lose more."""


class NonFiniteVectorError(StellaMtebError, ValueError):
    """A vector holds NaN or infinity; it is never returned, stored or averaged (exit code 1)."""
