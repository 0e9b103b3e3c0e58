"""Postgres out of a wheel, for the first five minutes, for small machines and for tests.

One server per data folder, shared by every process that names the folder. `shared` is the door: who uses
the server, who starts it, who stops it. `cluster` knows one server and its files, `account` under whom it
runs (Postgres refuses root), `install` where its programs are, `process` whether a pid still is what it was.
"""

from eventflow.embedded.shared import Embedded

__all__ = ["Embedded"]
