"""How the brokers are reached: addresses, TLS and SASL from the words of the block, secrets filled in."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from connectors.kafka.config import Sasl, Tls
from eventflow.errors import SourceUnavailable
from eventflow.holes import fill


@dataclass(frozen=True, slots=True)
class Access:
    """Addresses, and what aiokafka's connections want to be told; it holds passwords."""

    bootstrap: list[str]
    options: dict[str, Any] = field(repr=False)


class Reached(Protocol):
    """The words that say how a cluster is reached; a source's block has them, and a task's."""

    @property
    def bootstrap(self) -> str | list[str]: ...
    @property
    def sasl(self) -> Sasl | None: ...
    @property
    def tls(self) -> bool | Tls: ...


def access(name: str, config: Reached, folder: Path, secret: Callable[[str], str]) -> Access:
    """Reads certificates, so it belongs in a thread. Raises `SourceUnavailable` naming what is wrong."""
    given = [config.bootstrap] if isinstance(config.bootstrap, str) else config.bootstrap
    filled = ",".join(fill(text, secret) for text in given)
    options: dict[str, Any] = {"security_protocol": "PLAINTEXT"}
    if config.tls:
        tls = config.tls if isinstance(config.tls, Tls) else Tls()
        options |= {"security_protocol": "SSL", "ssl_context": _tls(name, tls, folder, secret)}
    if config.sasl is not None:
        options |= {
            "security_protocol": "SASL_SSL" if config.tls else "SASL_PLAINTEXT",
            "sasl_mechanism": config.sasl.mechanism,
            "sasl_plain_username": fill(config.sasl.username, secret),
            "sasl_plain_password": fill(config.sasl.password, secret),
        }
    return Access([one.strip() for one in filled.split(",") if one.strip()], options)


def _tls(name: str, tls: Tls, folder: Path, secret: Callable[[str], str]) -> ssl.SSLContext:
    def path(text: str | None) -> str | None:
        return None if text is None else str(Path(folder, fill(text, secret)))

    cert = path(tls.cert)
    try:
        context = ssl.create_default_context(cafile=path(tls.ca))
        context.check_hostname = tls.check_hostname
        if cert is not None:
            context.load_cert_chain(cert, path(tls.key), tls.password and fill(tls.password, secret))
    except OSError as error:  # ssl.SSLError is one
        raise SourceUnavailable(f"source '{name}': tls: {error}") from error
    return context
