"""Logs: one line per fact, its names bound (source, partition, rule, firing_id, run_id, task, attempt).

On standard error, as text for people or as JSON (`EVENTFLOW_LOG=json`). No payloads.
"""

from __future__ import annotations

import logging
import re
import sys
from io import StringIO
from typing import Any, Final, TextIO

import structlog

from eventflow.settings import LogFormat

_ABOVE_ASCII: Final = r"\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROL: Final = re.compile(rf"[\x00-\x1f{_ABOVE_ASCII}]")
_CONTROL_BUT_LINES: Final = re.compile(rf"[\x00-\x08\x0b-\x1f{_ABOVE_ASCII}]")


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _escape_names(_log: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Names come from outside: none may steer a terminal, or end its line and begin another."""
    return {k: _CONTROL.sub(_escape, v) if isinstance(v, str) else v for k, v in line.items()}


def _traceback(stream: TextIO, error: structlog.typing.ExcInfo) -> None:
    lines = StringIO()
    structlog.dev.plain_traceback(lines, error)
    stream.write(_CONTROL_BUT_LINES.sub(_escape, lines.getvalue()))


def configure_logging(log_format: LogFormat) -> None:
    """Set up structlog, and hand it what libraries log at `warning` or above."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = log_format is LogFormat.json
    shared.append(structlog.processors.format_exc_info if as_json else _escape_names)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=_traceback, pad_event_to=24
        )
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # Every loop of ours says once that Postgres is away; the driver would add a traceback a second.
    logging.getLogger("asyncpg").setLevel(logging.ERROR)
