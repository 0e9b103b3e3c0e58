"""The words of a watermark's block, with and without the client library."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.sql_watermark.config import SqlWatermarkConfig

WORDS: dict[str, Any] = {
    "url": "${secret.URL}", "table": "public.orders", "column": "id", "initial": "latest",
}  # fmt: skip
WITHOUT_PSYCOPG = """
import asyncio, sys
from pathlib import Path
sys.modules["psycopg"] = None
from connectors.sql_watermark import SqlWatermarkSource
from eventflow.errors import SourceUnavailable
from eventflow.testing.reading import Core
words = {"url": "postgresql://x", "table": "public.orders", "column": "id", "initial": "latest"}
config = SqlWatermarkSource.Config.model_validate(words)
try:
    asyncio.run(SqlWatermarkSource("orders", config, Core(Path()).context()).origin())
except SourceUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"table": "orders"}, "write schema.table, like public.orders"),
        ({"table": "public.orders; DROP TABLE x"}, "is no table"),
        ({"table": "a.b.c"}, "is no table"),
        ({"column": "a b"}, "is no column"),
        ({"column": ""}, "is no column"),
        ({"initial": "first"}, "'earliest' or 'latest'"),
        ({"every": "0s"}, "longer than nothing"),
        ({"where": "TRUE"}, "Extra inputs"),
    ],
)
def test_what_is_wrong_is_said(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SqlWatermarkConfig.model_validate({**WORDS, **words})
    assert said in str(caught.value)


@pytest.mark.parametrize("word", WORDS)
def test_what_decides_where_to_begin_is_written_out(word: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        SqlWatermarkConfig.model_validate({name: value for name, value in WORDS.items() if name != word})


def test_names_are_folded_as_sql_does() -> None:
    config = SqlWatermarkConfig.model_validate({**WORDS, "table": 'Public."My ""T"""', "column": "ID"})
    assert (config.table_names, config.column_name) == (("public", 'My "T"'), "id")


def test_its_words_are_known_without_the_client_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PSYCOPG], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("source 'orders': ")
    assert done.stdout.endswith("; install eventflow[postgres]\n")
