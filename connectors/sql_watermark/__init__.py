"""The SQL watermark connector: how many rows a table has grown by, exactly, without change data capture."""

from connectors.sql_watermark.source import SqlWatermarkSource

__all__ = ["SqlWatermarkSource"]
