"""The words of a Postgres source in a rule file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

NAME: Final = re.compile(r"[a-z0-9_]{1,63}")
_TABLE: Final = re.compile(r'[^."\s][^."]*\.[^."]+')
_FORBIDDEN: Final = {"eventflow", "pg_catalog", "information_schema"}


class TableConfig(BaseModel):
    """A table by its schema and name as Postgres keeps them (no quotes), and which of its rows to take."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    table: str
    where: str | None = Field(default=None, min_length=1)

    @field_validator("table")
    @classmethod
    def _whole_name(cls, table: str) -> str:
        if not _TABLE.fullmatch(table):
            raise ValueError(f"{table!r}: write schema.table, without quotes")
        if table.split(".", 1)[0] in _FORBIDDEN:
            # Every batch writes there: each event would be the cause of the next one.
            raise ValueError(f"{table!r}: tables of this schema cannot be captured")
        return table

    @property
    def schema_name(self) -> str:
        return self.table.split(".", 1)[0]

    @property
    def name(self) -> str:
        return self.table.split(".", 1)[1]


def _table(value: Any) -> Any:
    return {"table": value} if isinstance(value, str) else value


Table = Annotated[TableConfig, BeforeValidator(_table, json_schema_input_type=str | TableConfig)]

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class PostgresCdcConfig(BaseModel):
    """A database, the tables whose changes are events, and whether to begin with what is in them.

    `slot` and `publication` are the names on the server, by default `eventflow_` and the source's name.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(min_length=1, examples=["${secret.SHOP_DATABASE}"])
    tables: list[Table] = Field(min_length=1, examples=[["public.orders"]])
    snapshot: Literal["never", "initial"] = "never"
    slot: str | None = None
    publication: str | None = None

    @field_validator("url")
    @classmethod
    def _of_postgres(cls, url: str) -> str:
        found = _SCHEME.match(url)
        if found and found[1] not in ("postgresql", "postgres"):
            raise ValueError(
                f"{found[1]}:// is no address of Postgres; write postgresql://USER@HOST/DATABASE"
            )
        return url

    @field_validator("slot", "publication")
    @classmethod
    def _plain(cls, name: str | None) -> str | None:
        if name is not None and not NAME.fullmatch(name):
            raise ValueError(f"{name!r}: up to 63 of a-z, 0-9 and _")
        return name

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        names = [table.table for table in self.tables]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"table {twice[0]!r} is listed twice")
        return self

    @property
    def by_name(self) -> Mapping[str, TableConfig]:
        """The tables by `schema.table`."""
        return {table.table: table for table in self.tables}


def default_name(source: str) -> str:
    """The name of slot and publication: `eventflow_` and the source's name, as far as they may hold it."""
    return ("eventflow_" + re.sub(r"[^a-z0-9_]", "_", source.lower()))[:63]
