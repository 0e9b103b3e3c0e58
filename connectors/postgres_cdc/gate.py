"""May the stream go on from where we stand? A gap stops it, what may heal by itself waits.

The stored position is the authority. After a crash the slot stands before it and repeats what we know;
should it ever stand behind it, changes between the two will never be sent.
"""

from __future__ import annotations

import asyncio
from typing import Final

from connectors.postgres_cdc.config import PostgresCdcConfig
from connectors.postgres_cdc.lsn import lsn_text, parse_lsn
from connectors.postgres_cdc.position import Position
from connectors.postgres_cdc.replication import Walsender
from connectors.postgres_cdc.server import Slot, State, end_reader, missing_tables, slot
from connectors.postgres_cdc.session import Refused, Session, application_name
from connectors.postgres_cdc.setup import publication_fits
from eventflow.errors import SourceStopped, SourceUnavailable

IN_USE: Final = "55006"
TAKE_OVER_SECONDS: Final = 5.0


def check(
    name: str, config: PostgresCdcConfig, names: tuple[str, str], state: State, position: Position | None
) -> Slot:
    """The slot, where the stream may begin at `position` (None: at the slot's own).

    `names` are slot and publication. Raises `SourceUnavailable` or `SourceStopped`.
    """
    _check_tables(name, config, names[1], state)
    found = state.slot
    if found is None or found.lost or found.confirmed is None:
        gone = f"source '{name}': the slot '{names[0]}' is {'lost' if found else 'not there'}"
        if position is None:
            raise SourceUnavailable(f"{gone}; run `eventflow sources setup {name}`")
        raise _stopped(
            gone + (", the server has removed WAL that it needed" if found else ""),
            name, position, state.server.wal,
        )  # fmt: skip
    if found.plugin != "pgoutput" or found.database != state.server.database:
        raise SourceUnavailable(
            f"source '{name}': the slot '{names[0]}' is one of {found.plugin} in database {found.database}; "
            "give the source another `slot`"
        )
    if position is not None and parse_lsn(found.confirmed) > position.lsn:
        raise _stopped(
            f"source '{name}': the slot '{names[0]}' was made anew or moved on by others", name, position,
            found.confirmed,
        )  # fmt: skip
    return found


def _stopped(what: str, name: str, position: Position, to: str) -> SourceStopped:
    missing = {"from": lsn_text(position.lsn), "to": to}
    return SourceStopped(
        f"{what}: changes from {missing['from']} to {to} may be missing; "
        f"run `eventflow sources setup {name}` if there is no slot, "
        f"then `eventflow sources resume {name} --from earliest`",
        missing,
    )


def _check_tables(name: str, config: PostgresCdcConfig, publication: str, state: State) -> None:
    if state.server.wal_level != "logical":
        raise SourceUnavailable(f"source '{name}': the server has wal_level = {state.server.wal_level}; "
                                "set it to logical and restart it")  # fmt: skip
    if missing := missing_tables(config, state.tables):
        raise SourceUnavailable(f"source '{name}': there is no table {', '.join(missing)}")
    if state.publication is None or not publication_fits(config, state):
        said = "is not there" if state.publication is None else "does not fit `tables`"
        raise SourceUnavailable(
            f"source '{name}': the publication '{publication}' {said}; run `eventflow sources setup {name}`"
        )
    own = [table for table in state.publication.tables if table.startswith("eventflow.")]
    if own:
        # Each batch of ours would be WAL for the next one.
        raise SourceUnavailable(
            f"source '{name}': the publication '{publication}' has eventflow's own tables ({own[0]}); "
            "name a publication without them"
        )


async def check_timeline(name: str, sender: Walsender, position: Position) -> int:
    """The server's timeline, where `position` lies on its history; else another server was promoted early.

    Raises `SourceStopped`.
    """
    _, current, end, _ = (await sender.rows("IDENTIFY_SYSTEM"))[0]
    timeline = int(current or 0)
    if timeline != position.timeline:
        history = (await sender.rows(f"TIMELINE_HISTORY {timeline}"))[0][1] or ""
        left = switched(history, position.timeline)
        if left is None or left < position.lsn:
            at = "never" if left is None else lsn_text(left)
            raise SourceStopped(
                f"source '{name}': another server is there now, on timeline {timeline}, which left ours "
                f"({position.timeline}) at {at}, before our position {lsn_text(position.lsn)}: "
                f"what we took in after that never happened there; "
                f"`eventflow sources resume {name} --from earliest` goes on",
                {"from": at, "to": lsn_text(position.lsn)},
            )
    elif end is not None and parse_lsn(end) < position.lsn:
        raise SourceStopped(
            f"source '{name}': the server's WAL ends at {end}, before our position "
            f"{lsn_text(position.lsn)}: it was put back to an earlier state; "
            f"`eventflow sources resume {name} --from earliest` goes on",
            {"from": end, "to": lsn_text(position.lsn)},
        )
    return timeline


def switched(history: str, timeline: int) -> int | None:
    """Where `timeline` was left, by a timeline history file; None where it is no part of that history."""
    for line in history.splitlines():
        parts = line.split()
        if len(parts) >= 2 and parts[0] == str(timeline):
            return parse_lsn(parts[1])
    return None


async def start(
    name: str, sender: Walsender, session: Session, names: tuple[str, str], position: Position
) -> None:
    """Start to stream. A reader of ours that is left over is ended: we own the source now.

    Raises `SourceUnavailable` where a stranger reads the slot.
    """
    deadline = asyncio.get_running_loop().time() + TAKE_OVER_SECONDS
    while True:
        try:
            return await sender.start(names[0], names[1], position.lsn)
        except Refused as error:
            if error.state != IN_USE or asyncio.get_running_loop().time() > deadline:
                raise SourceUnavailable(f"source '{name}': {error}") from error
        reader = await slot(session, names[0])
        if reader and reader.pid is not None:
            if reader.application is not None and reader.application != application_name(name):
                raise SourceUnavailable(
                    f"source '{name}': the slot '{names[0]}' is read by "
                    f"'{reader.application}' (process {reader.pid})"
                )
            await end_reader(session, reader.pid, application_name(name))
            await asyncio.sleep(0.05)
