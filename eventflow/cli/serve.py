"""`eventflow serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eventflow.cli.apply import read
from eventflow.cli.options import examples

EXAMPLES = examples(
    "eventflow serve rules/                    apply the folder, watch it, run it; Ctrl-C drains and stops",
    "eventflow serve                           run the rule set that the database holds already",
    "EVENTFLOW_DATABASE_URL=postgresql://me@db/flows eventflow serve",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(serve)


def serve(
    path: Annotated[
        Path | None, typer.Argument(help="A rule file or a folder of them.", show_default=False)
    ] = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Replace a rule set that was applied from elsewhere.")
    ] = False,
) -> None:
    """Run sources, workers, HTTP and maintenance in one process.

    On EVENTFLOW_DATABASE_URL, or with none set on an embedded Postgres in EVENTFLOW_DATA. With PATH, applies
    it and applies it again when its files change. Several `serve` on one Postgres share the work.
    """
    import structlog
    import uvloop

    from eventflow import service
    from eventflow.cli.session import place, refusals_told
    from eventflow.log import configure_logging
    from eventflow.settings import load_settings, unknown_variables

    settings = load_settings()
    if path is not None:
        read(path)  # a set that does not load is refused before Postgres is started
    configure_logging(settings.log)
    for name, meant in unknown_variables().items():
        structlog.get_logger().warning("unknown_setting", variable=name, did_you_mean=meant)
    with refusals_told(place(settings.database_url) if settings.database_url else str(settings.data)):
        uvloop.run(service.serve(settings, path, take_over=take_over))
