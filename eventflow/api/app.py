"""The HTTP front as a bare ASGI application: `/healthz`, and the sources mounted at `/hooks/NAME`.

Bare, because a framework costs more than a webhook's whole way through eventflow.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any, Final

import msgspec

from eventflow.source import RoutedSource

HOOKS: Final = "/hooks/"


class App:
    """Routes requests. `mount` and `unmount` take effect for requests that begin afterwards.

    `ready` says that the sources run: `GET /healthz` answers 503 until it is set.
    """

    def __init__(self) -> None:
        self.ready = False
        self._mounted: dict[str, RoutedSource] = {}

    def mount(self, name: str, source: RoutedSource) -> None:
        """Serve `/hooks/NAME` with `source`, in place of what served it so far."""
        self._mounted[name] = source

    def unmount(self, name: str) -> None:
        """Answer `/hooks/NAME` with 404 from now on; requests already inside go on to their answer."""
        self._mounted.pop(name, None)

    @property
    def mounted(self) -> Sequence[str]:
        """The names served, sorted."""
        return sorted(self._mounted)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve one request."""
        path: str = scope["path"]
        if path.startswith(HOOKS):
            source = self._mounted.get(path[len(HOOKS) :])
            if source is not None:
                return await source(scope, receive, send)
            return await _answer(send, 404, {"error": "no webhook of this name"})
        if path == "/healthz":
            return await self._health(scope["method"], send)
        return await _answer(send, 404, {"error": "nothing here"})

    async def _health(self, method: str, send: Any) -> None:
        if method not in ("GET", "HEAD"):
            return await _answer(send, 405, {"error": "only GET"}, (b"allow", b"GET, HEAD"))
        if self.ready:
            return await _answer(send, 200, {"status": "ok"})
        return await _answer(send, 503, {"status": "starting"}, (b"retry-after", b"1"))


async def _answer(send: Any, status: int, body: Any, *headers: tuple[bytes, bytes]) -> None:
    text = msgspec.json.encode(body)
    length = (b"content-length", str(len(text)).encode())
    content = (b"content-type", b"application/json")
    await send({"type": "http.response.start", "status": status, "headers": (content, length, *headers)})
    await send({"type": "http.response.body", "body": text})
