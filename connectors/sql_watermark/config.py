"""The words of a watermark in a rule file."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from eventflow.source import Duration

_NAME: Final = r'(?:[^\W\d][\w$]*|"(?:[^"\x00]|"")+")'
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_TABLE: Final = re.compile(rf"({_NAME})\.({_NAME})")
_COLUMN: Final = re.compile(_NAME)


class SqlWatermarkConfig(BaseModel):
    """A table that rows are only added to, and the column that grows with them.

    `table` and `column` are written as in SQL: folded to lower case unless quoted. `url` may hold
    `${secret.NAME}`, filled in at use.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(min_length=1, examples=["${secret.DATABASE_URL}"])]
    table: Annotated[str, Field(examples=["public.orders"])]
    column: Annotated[str, Field(examples=["id"])]
    initial: Literal["earliest", "latest"]
    every: Duration = timedelta(seconds=30)
    lag: Duration | None = None

    @field_validator("url")
    @classmethod
    def _of_postgres(cls, url: str) -> str:
        found = _SCHEME.match(url)
        if found and found[1] not in ("postgresql", "postgres"):
            raise ValueError(
                f"{found[1]}:// is no address of Postgres; write postgresql://USER@HOST/DATABASE"
            )
        return url

    @field_validator("table")
    @classmethod
    def _with_its_schema(cls, table: str) -> str:
        if not _TABLE.fullmatch(table):
            raise ValueError(f"{table!r} is no table; write schema.table, like public.orders")
        return table

    @field_validator("column")
    @classmethod
    def _one_name(cls, column: str) -> str:
        if not _COLUMN.fullmatch(column):
            raise ValueError(
                f"{column!r} is no column; write its name, quoted where it has capitals or spaces"
            )
        return column

    @property
    def table_names(self) -> tuple[str, str]:
        """Schema and table as the catalogue knows them."""
        found = _TABLE.fullmatch(self.table)
        assert found
        return _catalogued(found[1]), _catalogued(found[2])

    @property
    def column_name(self) -> str:
        """The column as the catalogue knows it."""
        return _catalogued(self.column)


def _catalogued(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
