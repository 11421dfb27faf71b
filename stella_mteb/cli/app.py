"""The command line. Results go to stdout, messages to stderr; each command imports heavy modules only if needed.

Exit codes: 0 done, 1 something failed, 2 usage or config, 3 environment, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import traceback
import warnings
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

import stella_mteb
from stella_mteb.cli.display import say
from stella_mteb.errors import StellaMtebError
from stella_mteb.files.tables import plain

_INTERRUPTED = 130

app = typer.Typer(
    name="stella-mteb",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run Stella and other embedding models on MTEB, judge video summaries, and compare models.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"stella-mteb {stella_mteb.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Run Stella and other embedding models on MTEB, judge video summaries, and compare models."""


def set_offline(offline: bool) -> None:
    """Set every library to offline. Call it before importing them, because they read the setting on import."""
    if offline:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1")


class _PlainLines(logging.Formatter):
    """Removes escape codes and access tokens from log messages, for terminals and the logs of a cluster."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(plain, super().format(record).split("\n")))


def _quiet_libraries() -> None:
    # Progress bars and notices of libraries would hide ours; their errors are shown.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")  # it says of data at its commit that it is the newest
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_PlainLines("%(levelname)s: %(message)s"))
    logging.getLogger("stella_mteb").addHandler(handler)
    logging.getLogger("stella_mteb").propagate = False
    logging.getLogger("stella_mteb.models.download").setLevel(logging.INFO)  # announces large downloads
    if logging.lastResort is not None:  # prints the libraries' own messages
        logging.lastResort.setFormatter(_PlainLines())
    logging.getLogger("mteb").setLevel(logging.ERROR)


def _interrupt(_signal: int, _frame: object) -> None:
    # SIGTERM, sent by schedulers, ends a run like Ctrl-C: finished work is saved, and the last line says how to resume.
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line."""
    _quiet_libraries()
    signal.signal(signal.SIGTERM, _interrupt)
    code, typed = 0, shlex.join(sys.argv[1:])
    try:
        code = app(standalone_mode=False) or 0
    except TyperException as error:
        # Only usage errors arrive here; `show` prints the usage line of the command.
        error.show()  # type: ignore[attr-defined]
        code = 2
    except StellaMtebError as error:
        say(f"error: {error}")
        code = error.exit_code
    except (KeyboardInterrupt, Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout is gone (`| head`); redirect it, or Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception:  # a bug: print the traceback like Python, but without tokens and escape codes
        say(traceback.format_exc().rstrip())
        code = 1
    if code == _INTERRUPTED:  # typer turns Ctrl-C in a command into this code
        say("interrupted; finished work is on disk. To resume:")
        say(f"  stella-mteb {typed}")
    sys.exit(code)
