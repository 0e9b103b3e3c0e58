"""Every SQL constant of eventflow is one that the migrated schema understands."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import LiteralString, cast

import eventflow.store
from eventflow.store.pool import Pool

# Several commands each, which no server prepares.
_SCRIPTS = {"eventflow.store.migrate._PREPARE", "eventflow.store.plans.SET_PLANS"}
_STATEMENT = re.compile(
    r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH|DO|CREATE|ALTER|DROP|LOCK|NOTIFY|SET|MERGE|COPY)\s"
)


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(eventflow.store.__path__, "eventflow.store."):
        if not found.name.startswith("eventflow.store.migrations"):
            yield importlib.import_module(found.name)


def statements() -> Iterator[tuple[str, str]]:
    for module in modules():
        for name, value in vars(module).items():
            label = f"{module.__name__}.{name}"
            is_statement = name.isupper() and isinstance(value, str) and _STATEMENT.match(value)
            if is_statement and label not in _SCRIPTS:
                yield label, value


STATEMENTS = dict(statements())


def test_there_are_statements() -> None:
    assert len(STATEMENTS) > 50


async def test_every_statement_can_be_prepared(pool: Pool) -> None:
    refused: dict[str, str] = {}
    async with pool.acquire() as connection:
        for name, statement in STATEMENTS.items():
            try:
                await connection.prepare(cast("LiteralString", statement))
            except Exception as error:
                refused[name] = str(error)
    assert refused == {}
