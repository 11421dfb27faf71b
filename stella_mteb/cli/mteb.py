"""`stella-mteb mteb`."""

from __future__ import annotations

import typer

from stella_mteb.cli.app import app
from stella_mteb.files.folders import mteb_cache_folder, require_writable_cache


@app.command(
    short_help="Run MTEB's own command line with these models and tasks.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def mteb(context: typer.Context) -> None:
    """Run MTEB's own command line with this project's models and tasks; arguments are passed on."""
    require_writable_cache(mteb_cache_folder(), "MTEB_CACHE")  # MTEB writes its results there
    from stella_mteb.harness.register import mteb_command_line  # noqa: PLC0415

    mteb_command_line(context.args)
