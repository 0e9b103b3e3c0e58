"""What an error from Postgres means for the batch that met it. Source: PostgreSQL, appendix A (SQLSTATE)."""

from __future__ import annotations

import asyncpg

from eventflow.store.pool import DISCONNECTED


def _sqlstate(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def is_refusal(error: BaseException) -> bool:
    """The data itself was refused: class 22 (data exception), 54000 (a limit), or text that is no UTF-8.

    Running the batch again cannot help; finding the guilty record can.
    """
    if isinstance(error, UnicodeError):
        return True
    if isinstance(error, asyncpg.InterfaceError):
        return isinstance(error, ValueError)  # asyncpg's DataError: refused before it was sent
    return _sqlstate(error).startswith("22") or _sqlstate(error) == "54000"


def is_conflict(error: BaseException) -> bool:
    """Deadlock or serialization failure: the same transaction may succeed when run again."""
    return _sqlstate(error) in {"40P01", "40001"}


def is_lock_timeout(error: BaseException) -> bool:
    """`lock_timeout` ran out."""
    return _sqlstate(error) == "55P03"


def is_disconnect(error: BaseException) -> bool:
    """Postgres is away, or ended our session: a COMMIT in flight may have landed or not."""
    return (isinstance(error, DISCONNECTED) and not is_refusal(error)) or _sqlstate(error) == "25P03"


def server_refusal(error: BaseException) -> str | None:
    """Why no session came about, in a few words; None where the error says something else.

    Classes 08 (connection), 28 (password, pg_hba), 3D (no such database), 53 and 57 (full, starting, ended);
    42501 (a privilege is missing) and 25006 (read only).
    """
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, (asyncpg.InterfaceError, OSError)):
        return str(error)
    state = _sqlstate(error)
    return str(error) if state[:2] in {"08", "28", "3D", "53", "57"} or state in {"42501", "25006"} else None
