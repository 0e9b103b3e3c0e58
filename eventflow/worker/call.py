"""One attempt, ready to execute: everything an executor needs, in a form that crosses a pipe."""

from __future__ import annotations

import logging
from datetime import date, datetime, timedelta
from typing import Any, Final

import msgspec

from eventflow.task import Context, TriggeringEvent

_TYPES: Final[dict[str, Any]] = {"date": date, "datetime": datetime, "duration": timedelta}


class Call(msgspec.Struct, frozen=True):
    """Run `target` ("module:function") with `arguments`, or `argv`, with the code in `folder`.

    `arguments`, `params` and `data` (the triggering event's) are JSON: their integers may be of any size,
    which msgpack's are not. `typed` names the arguments that arrive as dates, datetimes and durations
    (seconds). `event` has no data of its own. `hidden` are the values of secrets among the arguments: nothing
    that is kept of the attempt may show them.
    """

    run_id: str
    workflow: str
    task: str
    attempt: int
    folder: str
    target: str = ""
    argv: tuple[str, ...] = ()
    arguments: bytes = b"{}"
    typed: dict[str, str] = {}
    params: bytes = b"{}"
    event: TriggeringEvent | None = None
    data: bytes = b"null"
    timeout: float | None = None
    hidden: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """What a shell task finds in its environment."""
        return {
            "EVENTFLOW_RUN_ID": self.run_id,
            "EVENTFLOW_TASK": self.task,
            "EVENTFLOW_ATTEMPT": str(self.attempt),
            "EVENTFLOW_IDEMPOTENCY_KEY": f"{self.run_id}:{self.task}",
        }

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments, typed ones converted."""
        values: dict[str, Any] = msgspec.json.decode(self.arguments)
        for name, kind in self.typed.items():
            if values.get(name) is not None:
                values[name] = msgspec.convert(values[name], _TYPES[kind], strict=False)
        return values

    def context(self, log: logging.Logger) -> Context:
        """What the task finds in its parameter `ctx`."""
        event = self.event
        if event is not None:
            event = msgspec.structs.replace(event, data=msgspec.json.decode(self.data))
        return Context(
            run_id=self.run_id, workflow=self.workflow, task=self.task, attempt=self.attempt,
            params=msgspec.json.decode(self.params), event=event, log=log,
        )  # fmt: skip
