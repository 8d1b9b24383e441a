"""What stands before every page: who may be addressed, how much may be sent, which headers leave.

The Host allow-list is what keeps a web site that the operator visits from reading this page by
rebinding its own name to the loopback address.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALLOWED_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
BODY_LIMIT: Final = 16 * 1024  # bytes: the search form is the largest thing anybody sends

_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}

log = structlog.get_logger()


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port and in lower case."""
    name = host.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


class Guard:
    """Refuse foreign hosts and large bodies, and set the security headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope))
        cacheable = str(scope["path"]).startswith("/static/")

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                if cacheable:
                    headers["Cache-Control"] = "no-cache"
            await send(message)

        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> PlainTextResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in ALLOWED_HOSTS:
            log.warning("admin.host_refused")
            names = ", ".join(sorted(ALLOWED_HOSTS))
            return PlainTextResponse(f"This page answers only to {names}.\n", status_code=421)
        if "transfer-encoding" in headers:
            return PlainTextResponse("A body needs its length.\n", status_code=411)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_LIMIT:
            return PlainTextResponse("The body is too large.\n", status_code=413)
        return None
