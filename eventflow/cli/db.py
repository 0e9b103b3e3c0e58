"""`eventflow db migrate|status`."""

from __future__ import annotations

import asyncio

import typer

from eventflow.cli.options import Json, examples
from eventflow.cli.output import line, print_rows

group = typer.Typer(
    help="Bring the database to this version's schema.",
    epilog=examples(
        "eventflow db status                       which migrations the database has",
        "eventflow db migrate                      apply the ones it lacks; `serve` does so by itself",
    ),
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="db")


@group.command(epilog=examples("EVENTFLOW_DATABASE_URL=postgresql://me@db/flows eventflow db migrate"))
def migrate() -> None:
    """Apply the migrations that the database lacks. Safe to run from several machines at once."""
    for name in asyncio.run(_migrate()):
        line(f"applied {name}")
    line("the schema is up to date")


async def _migrate() -> list[str]:
    from eventflow.cli.session import reached
    from eventflow.settings import load_settings
    from eventflow.store import migrate as migrations
    from eventflow.store.pool import check_server

    settings = load_settings()
    async with reached(settings, create=True) as pool, pool.acquire() as conn:
        await check_server(conn, allow_unsafe=settings.allow_unsafe_durability)
        return await migrations.migrate(conn)


@group.command(epilog=examples("eventflow db status || eventflow db migrate"))
def status(json: Json = False) -> None:
    """List migrations and when the database took them. Exits 1 where one is missing."""
    rows = asyncio.run(_status())
    print_rows(rows, ("number", "name", "applied"), as_json=json, empty="")
    if any(row["applied"] is None for row in rows):
        raise typer.Exit(1)


async def _status() -> list[dict[str, object]]:
    from dataclasses import asdict

    from eventflow.cli.session import reached
    from eventflow.settings import load_settings
    from eventflow.store import migrate as migrations

    async with reached(load_settings()) as pool, pool.acquire() as conn:
        return [asdict(found) for found in await migrations.status(conn)]
