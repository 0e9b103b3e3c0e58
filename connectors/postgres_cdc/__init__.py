"""Changes of Postgres tables, by logical replication: `connector: postgres_cdc`."""

from __future__ import annotations

from connectors.postgres_cdc.source import PostgresCdcSource

__all__ = ["PostgresCdcSource"]
