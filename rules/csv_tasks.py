"""The tasks of files.yaml: plain functions. What they return must be JSON; what they raise fails the run."""

from __future__ import annotations

import csv
from pathlib import Path

import duckdb

QUERY = "read_csv(?, header = true, delim = ',', quote = '\"')"


def whole(path: str) -> dict[str, int]:
    """Refuse a file whose last row is cut off: it has fewer columns than the header."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        header = next(rows)
        last, number = header, 1
        for row in rows:
            last, number = row, number + 1
    if len(last) != len(header):
        raise ValueError(f"row {number} has {len(last)} of {len(header)} columns: the file ends in mid-row")
    return {"columns": len(header)}


def profile(path: str) -> dict[str, object]:
    """Rows, and per column its type, share of nulls and number of distinct values."""
    with duckdb.connect() as db:
        rows = db.execute(f"SELECT count(*) FROM {QUERY}", [path]).fetchall()[0][0]
        wanted = "column_name, column_type, null_percentage, approx_unique"
        summary = db.execute(f"SELECT {wanted} FROM (SUMMARIZE FROM {QUERY})", [path]).fetchall()
    columns = {name: {"type": kind, "nulls": float(nulls), "distinct": n} for name, kind, nulls, n in summary}
    return {"rows": rows, "columns": columns}


def convert(path: str, dataset: str, rows: int) -> dict[str, object]:
    """Write Parquet beside the landing folder, named for the dataset: a retry overwrites."""
    target = Path(path).parent.parent / "parquet" / f"{dataset}.parquet"
    target.parent.mkdir(exist_ok=True)
    quoted = str(target).replace("'", "''")
    with duckdb.connect() as db:
        db.execute(f"COPY (FROM {QUERY}) TO '{quoted}' (FORMAT parquet)", [path])
        written = db.execute("SELECT count(*) FROM read_parquet(?)", [str(target)]).fetchall()[0][0]
    if written != rows:
        raise ValueError(f"{target} has {written} rows, {path} has {rows}")
    return {"parquet": str(target), "rows": written, "bytes": target.stat().st_size}
