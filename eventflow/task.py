"""What a task sees: its arguments, its context, and what it may return.

    def profile(path: str, day: date, ctx: Context) -> dict: ...

A task gets its `with` as keyword arguments. They are JSON values, except that an argument which is just one
parameter (`"${params.day}"`) declared as `date`, `datetime` or `duration` arrives as `datetime.date`,
`datetime.datetime` or `datetime.timedelta`. A parameter named `ctx` gets the `Context`. What it returns must
be JSON (dataclasses, msgspec structs, dates, sets and the like are written as JSON) of at most 1 MiB.
What it prints and logs is kept as the task's log.

Tasks run at least once: after a crash the same task runs again, with the same `ctx.idempotency_key`.

A connector brings a kind of task of its own as a `Kind`, registered under the entry point group
`eventflow.tasks`; the name of the entry point is the word that a task has in place of `python:`.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import os
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import dropwhile, islice
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final, Protocol, cast

import msgspec

from eventflow.errors import TaskError, Undecodable
from eventflow.event import JSON, decode_json, encode_json

if TYPE_CHECKING:  # every task process imports this module, and none of them needs pydantic
    from pydantic import BaseModel

RESULT_LIMIT: Final = 1024 * 1024
_FRAMES: Final = 10
_CAUSES: Final = 5
_MESSAGE_LIMIT: Final = 4000
"""Characters of an error's message that are kept: it stands in rows, tables and logs."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WORKER: Final = os.path.join(os.path.dirname(__file__), "worker", "")


class TriggeringEvent(msgspec.Struct, frozen=True):
    """The event that started the run; `event.data` and `event["data"]` are the same.

    `source` is the configured name of its source. `data` is decoded, `meta` holds facts of the transport.
    """

    source: str
    id: str
    type: str
    data: JSON
    subject: str | None = None
    time: datetime | None = None
    ingested: datetime | None = None
    sender: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: Mapping[str, str | int | bool] = {}
    meta: Mapping[str, JSON] = {}

    def __getitem__(self, name: str) -> JSON:
        if name not in self.__struct_fields__:
            raise KeyError(name)
        return getattr(self, name)


@dataclass(frozen=True, slots=True)
class Context:
    """What one attempt knows about itself.

    `attempt` counts from 1. `idempotency_key` is the same on every attempt: hand it to systems that
    can recognise a repetition. `params` are the run's parameters as JSON values. `event` is None where the
    run was started by hand. `log` writes to the task's log.
    """

    run_id: str
    workflow: str
    task: str
    attempt: int
    params: Mapping[str, JSON]
    event: TriggeringEvent | None
    log: logging.Logger

    @property
    def idempotency_key(self) -> str:
        """`run_id:task`."""
        return f"{self.run_id}:{self.task}"

    def open(self, path: str | os.PathLike[str], mode: str = "r", *, encoding: str | None = None) -> IO[Any]:
        """Open the triggering event's file for reading, if it still is the file that the event describes.

        Compares size and SHA-256 (reads the file once; an `async def` task calls it through
        `asyncio.to_thread`), or size and time of change where the event has no SHA-256. What was compared is
        what is returned, even if another file takes its name meanwhile. Text is UTF-8 unless said otherwise.
        Raises `TaskError` with both fingerprints, or where the event describes no such file.
        """
        described = self.event.data if self.event is not None else None
        data = cast("dict[str, JSON]", described) if isinstance(described, dict) else {}
        if not _same_path(data.get("path"), path):
            raise TaskError(
                f"ctx.open({str(path)!r}): the triggering event describes no such file; "
                "use open() for files that it does not vouch for"
            )
        if set(mode) - set("rbt"):
            raise TaskError(f"ctx.open({str(path)!r}): mode {mode!r} is not for reading")
        file = open(path, "rb")  # noqa: SIM115 - the task closes it
        try:
            _check_fingerprint(file, path, data)
        except BaseException:
            file.close()
            raise
        return file if "b" in mode else io.TextIOWrapper(file, encoding=encoding or "utf-8")


class Kind(Protocol):
    """What executes the tasks of one kind: `WORD: {...}` in a workflow, WORD being the entry point's name.

    Made without arguments where it is first needed, once for the loop that its tasks run on, and kept: what
    it holds open (connections above all) serves the next task too. Everything in it runs on that loop, many
    tasks at once. It imports its client library where it first uses it, and says as a `TaskError` what to
    install.
    """

    Config: ClassVar[type[BaseModel]]
    """The words of the block once its holes are filled: any text in it may have `${...}`, secrets included,
    and text that is one hole brings the value's type. Extra words are refused."""

    async def run(self, config: Any, ctx: Context, /) -> object:
        """Execute one attempt; what it returns is the task's result, as JSON.

        `config` is an instance of `Config`. May run again for the same `ctx.idempotency_key`. Is cancelled at
        the task's timeout, when its run is cancelled and when the node stops. Raises `TaskError` with one
        sentence for what went wrong outside; values of secrets in it, in the result and in the task's log are
        covered.
        """
        ...

    async def close(self) -> None:
        """Let go of everything; the last call. Given two seconds."""
        ...


def _same_path(described: object, path: str | os.PathLike[str]) -> bool:
    return isinstance(described, str) and os.path.realpath(described) == os.path.realpath(path)


def _check_fingerprint(
    file: io.BufferedReader, path: str | os.PathLike[str], data: Mapping[str, JSON]
) -> None:
    """Compare what is open with what the event says; the file stands at its beginning afterwards."""
    stat = os.fstat(file.fileno())
    found: dict[str, JSON] = {"size": stat.st_size}
    if isinstance(data.get("sha256"), str):
        found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
    elif isinstance(data.get("modified"), str):
        changed = _EPOCH + timedelta(microseconds=stat.st_mtime_ns // 1000)
        found["modified"] = changed.isoformat().replace("+00:00", "Z")
    for name, value in found.items():
        then = data.get(name)
        if then is not None and then != value:
            raise TaskError(f"{os.fspath(path)} has changed since its event: {name} {then} then, {value} now")


def encode_result(result: object) -> bytes:
    """What a task returned, as JSON. Raises `TaskError` where no event could hold it, or it is too large.

    An event does hold it, that of the run's outcome; and an encoder takes what no decoder takes back.
    """
    try:
        encoded = encode_json(result)
        decode_json(encoded)
    except ValueError as error:
        raise TaskError(f"the result is {error}") from error
    except Undecodable as error:
        raise TaskError(f"the result cannot be kept: {error.reason}") from error
    if len(encoded) > RESULT_LIMIT:
        raise TaskError(
            f"the result has {len(encoded)} bytes of JSON; the limit is {RESULT_LIMIT}: "
            "write it somewhere and return where"
        )
    return encoded


def _storable(error: BaseException) -> str:
    """Its message, whatever the task put into it: no store takes a NUL, or half a character."""
    try:
        message = str(error)
    except Exception as failed:  # a `__str__` of the task's own
        return f"(its message cannot be made: {type(failed).__name__})"
    if len(message) > _MESSAGE_LIMIT:
        message = f"{message[:_MESSAGE_LIMIT]}... ({len(message)} characters)"
    return message.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")


def describe_error(error: BaseException, folder: str = "") -> str:
    """Type and message, then the last lines of the traceback, without the frames that called the task.

    What it was raised from follows, the same way. Files of the code folder are named as they are in it.
    """
    if isinstance(error, TaskError):
        return _storable(error)
    return "\ncaused by ".join(_describe_one(one, folder) for one in islice(_causes(error), _CAUSES))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from or while handling, back to the first; each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _describe_one(error: BaseException, folder: str) -> str:
    summary = f"{type(error).__name__}: {_storable(error)}".strip().removesuffix(":")
    frames = list(dropwhile(_is_ours, traceback.extract_tb(error.__traceback__)))[-_FRAMES:]
    if not frames:
        return summary
    shown = "".join(traceback.format_list(frames)).rstrip()
    return f"{summary}\n{shown.replace(f'{folder}{os.sep}', '') if folder else shown}"


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith((_WORKER, "<frozen importlib", importlib.__file__))
