"""Files that land in a folder: `connector: file`."""

from __future__ import annotations

from connectors.file.source import FileSource

__all__ = ["FileSource"]
