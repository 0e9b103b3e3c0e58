"""Tasks of kinds that connectors bring: the kinds that one loop has made, and one attempt of such a task."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from pydantic import ValidationError

from eventflow.errors import TaskError
from eventflow.event import JSON, decode_json
from eventflow.task import Kind, encode_result
from eventflow.worker.attempt import Attempt
from eventflow.worker.capture import task_logger
from eventflow.worker.hidden import cover_json
from eventflow.workflow.definition import OfKind

log = structlog.get_logger()

CLOSE_SECONDS: Final = 2.0
"""How long a kind may take to let go of what it holds open."""


class Kinds:
    """The kinds of one loop. Every method is called on that loop, but `made`."""

    def __init__(self) -> None:
        self._made: dict[OfKind, Kind] = {}

    @property
    def made(self) -> bool:
        """Whether there is anything to close."""
        return bool(self._made)

    async def run(self, of: OfKind, attempt: Attempt) -> JSON:
        """Execute the attempt; its result without the values of its secrets. Raises what the kind does."""
        call = attempt.call
        try:
            config = of.kind.Config.model_validate(call.keywords())
        except ValidationError as error:
            raise TaskError(f"{of.word}: {_objections(error)}") from None
        result = await self._kind(of).run(config, call.context(task_logger(attempt.log.write)))
        return cover_json(decode_json(encode_result(result)), call.hidden) if call.hidden else result

    def _kind(self, of: OfKind) -> Kind:
        kind = self._made.get(of)
        if kind is None:
            kind = self._made[of] = of.kind()
        return kind

    async def close(self) -> None:
        """Close all of them, side by side; whatever goes wrong there is logged."""
        await asyncio.gather(*(_close(of, kind) for of, kind in self._made.items()))
        self._made.clear()


async def _close(of: OfKind, kind: Kind) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await kind.close()
    except Exception:
        log.exception("kind_not_closed", kind=of.word)


def _objections(error: ValidationError) -> str:
    """Every word that does not fit, without its value: that may be a secret."""
    found = (
        (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, "))
        for one in error.errors(include_url=False, include_input=False)
    )
    return "; ".join(f"'{path}': {said[0].lower()}{said[1:]}" if path else said for path, said in found)
