"""`eventflow dlq [show|replay|edit|discard]`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventflow.cli.options import Json, Limit, Since, examples, row_limit
from eventflow.cli.output import line, note, print_fields, print_json, print_rows

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from eventflow.replay import Replayed
    from eventflow.store.pool import Connection, Pool

COLUMNS = ("created", "stage", "state", "source", "rule", "event", "position", "attempts", "reason", "id")
STAGES = ("decode", "match", "start", "task", "run")
STATES = ("open", "replayed", "discarded", "all")

group = typer.Typer(
    invoke_without_command=True,
    epilog=examples(
        "eventflow dlq                             what is open, newest first",
        "eventflow dlq show 05387648b861           one with its bytes; the end of its id is enough",
        "eventflow dlq edit 05387648b861           mend the bytes in $EDITOR; the original is kept",
        "eventflow dlq replay 05387648b861         send it in again",
        "eventflow dlq replay --all --rule orders-landed",
        "eventflow dlq discard 05387648b861 --reason 'sent by mistake'",
    ),
)


def register(app: typer.Typer) -> None:
    """Add the group."""
    app.add_typer(group, name="dlq")


def _one_of(words: tuple[str, ...], text: str) -> str:
    if text not in words:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(words)}")
    return text


def _stage(text: str) -> str:
    return _one_of(STAGES, text)


def _state(text: str) -> str:
    return _one_of(STATES, text)


LetterId = Annotated[
    str,
    typer.Argument(metavar="ID", help="The letter's id, or the beginning or end of it.", show_default=False),
]
Stage = Annotated[
    str | None, typer.Option("--stage", parser=_stage, metavar="STAGE", help=f"One of {', '.join(STAGES)}.")
]
Rule = Annotated[str | None, typer.Option("--rule", help="Only of this rule.")]
Source = Annotated[str | None, typer.Option("--source", help="Only of this source.")]


@group.callback()
def dlq(
    ctx: typer.Context,
    stage: Stage = None,
    rule: Rule = None,
    source: Source = None,
    state: Annotated[
        str, typer.Option("--state", parser=_state, metavar="STATE", help=f"One of {', '.join(STATES)}.")
    ] = "open",
    since: Since = None,
    limit: Limit = None,
    json: Json = False,
) -> None:
    """List dead letters: what could not be processed, and why. Show, edit, replay or discard them.

    Stages: decode (no event), match (a rule's `where`), start (a rule's `with`, or a chain of rules that is
    too long), task (it keeps crashing), run (it failed).
    """
    if ctx.invoked_subcommand is not None:
        return
    from eventflow.cli.naming import listed
    from eventflow.cli.positions import place_text
    from eventflow.cli.session import ask_pool
    from eventflow.store import dead_letters as store

    async def read(conn: Connection) -> store.View:
        return await store.letters(
            conn, state=None if state == "all" else store.LetterState(state),
            stage=store.Stage(stage) if stage else None, rule=rule, source=source,
            since=since, limit=row_limit(limit, json),
        )  # fmt: skip

    rows = ask_pool(lambda pool: listed(pool, read, rule=rule, source=source))
    shown = rows if json else [row | {"position": place_text(row["position"])} for row in rows]
    print_rows(shown, COLUMNS, as_json=json, empty="no dead letters that fit")


@group.command(
    epilog=examples("eventflow dlq show 05387648b861", "eventflow dlq show 05387648b861 --json | jq -r .raw")
)
def show(letter: LetterId, json: Json = False) -> None:
    """Show one dead letter: reason, stage, origin, attempts, and the bytes as text or hexadecimal."""
    from eventflow.cli.session import ask
    from eventflow.store import dead_letters as store

    async def read(conn: Connection) -> dict[str, Any]:
        return await store.show(conn, await store.find_letter(conn, letter))

    found = ask(read)
    if json:
        print_json(found | {"raw_is": "text" if _is_text(found["raw"]) else "hex"})
    else:
        print_fields({name: value for name, value in found.items() if value is not None})


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@group.command(
    epilog=examples(
        "eventflow dlq replay 05387648b861 5f0c77d1e2a4",
        "eventflow dlq replay --all --stage run --rule orders-landed --dry-run",
        "eventflow dlq replay --all --since 1h     oldest first",
        "eventflow dlq replay 05387648b861 --type order.placed",
    )
)
def replay(
    letters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Letters to send in again.", show_default=False),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every open letter that the options below select.")
    ] = False,
    stage: Stage = None,
    rule: Rule = None,
    source: Source = None,
    since: Since = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="At most so many, oldest first.")
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="The event's type, for a `decode` letter that does not know it."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also a letter that was replayed before.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen and change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Send dead letters in again, each exactly once per call, oldest first.

    Stage decode or match: a new event, for all rules. Stage start, task or run: fires its rule again, as the
    current rule set has it, and no other. Exits 1 where one is refused; it stays open and the others go on.
    """
    if bool(letters) == all_:
        raise typer.BadParameter("name the letters, or say --all", param_hint="ID")
    if letters and (stage or rule or source or since or limit):
        raise typer.BadParameter("--stage, --rule, --source, --since and --limit select with --all only")
    from eventflow.cli.session import ask_pool
    from eventflow.store.dead_letters import Stage as LetterStage

    wanted = {"stage": LetterStage(stage) if stage else None, "rule": rule, "source": source}
    done, refused = ask_pool(
        lambda pool: _replay(
            pool,
            letters or [],
            wanted=wanted,
            since=since,
            limit=limit,
            type_=type_,
            again=again,
            dry_run=dry_run,
        )
    )
    _report(done, refused, as_json=json, dry_run=dry_run)
    if refused:
        raise typer.Exit(1)


async def _replay(
    pool: Pool, names: list[str], *, wanted: dict[str, Any], since: datetime | None, limit: int | None,
    type_: str | None, again: bool, dry_run: bool,
) -> tuple[list[Replayed], list[tuple[UUID, str]]]:  # fmt: skip
    from eventflow.cli.naming import refuse_unknown
    from eventflow.cli.ruleset import revisions
    from eventflow.errors import EventflowError
    from eventflow.replay import Replay
    from eventflow.store import dead_letters as store

    async with pool.acquire() as conn:
        if names:
            ids = list(dict.fromkeys([await store.find_letter(conn, name) for name in names]))
        else:
            ids = await store.open_ids(conn, **wanted, since=since, limit=limit)
    if not ids:
        await refuse_unknown(pool, rule=wanted["rule"], source=wanted["source"])
    sending = Replay(pool, await revisions(pool), type_=type_, again=again, dry_run=dry_run)
    done: list[Replayed] = []
    refused: list[tuple[UUID, str]] = []
    for letter_id in ids:
        try:
            done.append(await sending.send(letter_id))
        except EventflowError as error:
            refused.append((letter_id, str(error)))
    return done, refused


def _report(done: list[Replayed], refused: list[tuple[UUID, str]], *, as_json: bool, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if as_json:
        print_json(
            [
                {"id": one.letter, "became": one.kind, "event": one.event, "rule": one.rule, "error": None}
                for one in done
            ]
            + [{"id": id_, "became": None, "event": None, "rule": None, "error": why} for id_, why in refused]
        )
        return
    for one in done:
        line(f"{one.letter}: {would}{one.sentence}")
    for letter_id, why in refused:
        note(f"{letter_id}: refused: {why}")
    if not done and not refused:
        note("no open dead letters that fit")


@group.command(
    epilog=examples(
        "eventflow dlq edit 05387648b861           opens $EDITOR",
        "eventflow dlq edit 05387648b861 --set-file mended.json",
        "jq '.qty = 3' broken.json | eventflow dlq edit 05387648b861 --set-file -",
        "eventflow dlq edit 05387648b861 --undo        back to what arrived",
    )
)
def edit(
    letter: LetterId,
    file: Annotated[
        str | None,
        typer.Option("--set-file", "-f", help="Take the bytes from this file; - is standard input."),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take an earlier edit back.")] = False,
) -> None:
    """Mend a letter's bytes. The original stays beside them; a replay sends the edit."""
    from eventflow.cli.session import ask
    from eventflow.store import dead_letters as store

    async def read(conn: Connection) -> dict[str, Any]:
        return await store.show(conn, await store.find_letter(conn, letter))

    found = ask(read)
    before = found["raw"] if found["edited"] is None else found["edited"]
    after = None if undo else _in_editor(before) if file is None else _read(file)
    if after == before:
        note("nothing changed")
        return
    ask(lambda conn: store.edit(conn, found["id"], after))
    line(
        f"dead letter {found['id']}: {'the edit is gone' if undo else 'edited'}; "
        f"`eventflow dlq replay {found['id']}` sends it in again"
    )


def _read(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _in_editor(content: bytes) -> bytes:
    """The bytes as the person left them. Raises `UsageError` where there is no editor, or it fails."""
    from eventflow.errors import UsageError

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise UsageError("neither VISUAL nor EDITOR is set; set one, or give the bytes with --set-file")
    with tempfile.TemporaryDirectory(prefix="eventflow-") as folder:
        path = Path(folder, "letter.json")
        path.write_bytes(content)
        try:
            code = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
        except OSError as error:
            raise UsageError(f"the editor {editor!r} does not start: {error}") from error
        if code != 0:
            raise UsageError(f"the editor {editor!r} ended with code {code}; the letter is as it was")
        return path.read_bytes()


@group.command(
    epilog=examples(
        "eventflow dlq discard 05387648b861 5f0c77d1e2a4",
        "eventflow dlq discard 05387648b861 --reason 'sent by mistake'",
    )
)
def discard(
    letters: Annotated[
        list[str], typer.Argument(metavar="ID...", help="Letters to be done with.", show_default=False)
    ],
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for whoever looks later.")] = None,
) -> None:
    """Mark open letters as done with, all or none of them. Their bytes stay; they count as dead no more."""
    from eventflow.cli.session import ask
    from eventflow.store import dead_letters as store

    async def discarded(conn: Connection) -> int:
        return await store.discard(conn, [await store.find_letter(conn, name) for name in letters], reason)

    count = ask(discarded)
    line(f"discarded {count} dead letter{'s' if count != 1 else ''}")
