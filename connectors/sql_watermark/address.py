"""The address of the table's server, and what it must not tell."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg.conninfo import conninfo_to_dict

from eventflow.errors import SourceUnavailable
from eventflow.holes import SECRET_HOLE, fill


def address(name: str, url: str, secret: Callable[[str], str]) -> str:
    """The `url` of the source `name` with its secrets filled in.

    Raises `SourceUnavailable` where it is no address, without a word of it: it may hold a password.

    libpq takes a password up to its first `@` or `/`, and would quote the rest of it as a host that it cannot
    find. A host may begin with `@`, which is a socket without a file.
    """
    url = fill(url, secret)
    try:
        found = {word: str(value or "") for word, value in conninfo_to_dict(url).items()}
    except psycopg.Error:
        raise SourceUnavailable(f"source '{name}': the url is no Postgres address") from None
    strayed = any("@" in found.get(word, "")[1:] for word in ("host", "hostaddr", "port", "dbname"))
    if strayed or found.get("port", "").strip("0123456789,"):
        raise SourceUnavailable(
            f"source '{name}': the url's host, port or database holds what may be a part of the password; "
            f"write `@` in a password as %40, `/` as %2F, `:` as %3A and `%` as %25"
        )
    return url


def password_in(url: str) -> bool:
    """Whether the url as it is written, secrets not filled in, has a password."""
    try:
        password = conninfo_to_dict(SECRET_HOLE.sub("_SECRET_", url)).get("password")
    except psycopg.Error:  # such as where all of it is a secret
        return False
    return bool(password) and "_SECRET_" not in str(password)
