"""The tasks of sql_watermark.yaml. The range of an event never changes, so a retry loads the same rows."""

from __future__ import annotations

import os

import psycopg

LOAD = """
SELECT count(*), coalesce(sum(amount), 0)
FROM public.orders
WHERE (%(after)s::bigint IS NULL OR id > %(after)s) AND id <= %(until)s
"""


def load(after: int | None, until: int) -> dict[str, int]:
    """How many rows lie in (after, until], and what they amount to."""
    with psycopg.connect(os.environ["ORDERS_URL"], autocommit=True) as conn:
        row = conn.execute(LOAD, {"after": after, "until": until}).fetchone()
    rows, amount = row or (0, 0)
    return {"rows": rows, "amount": int(amount)}
