"""Logs: one line per fact, its names bound (source, partition, rule, firing_id, run_id, task, attempt).

On standard error, as text for people or as JSON (`EVENTFLOW_LOG=json`). No payloads.
"""

from __future__ import annotations

import logging
import sys

import structlog

from eventflow.settings import LogFormat


def configure_logging(log_format: LogFormat) -> None:
    """Set up structlog, and hand it what libraries log at `warning` or above."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = log_format is LogFormat.json
    if as_json:
        shared.append(structlog.processors.format_exc_info)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=24
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
