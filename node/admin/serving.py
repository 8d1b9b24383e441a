"""A web application on a port of its own, in a thread of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from asyncio import Transport
from dataclasses import dataclass
from typing import ClassVar, Final

import h11
import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0
CONCURRENT_REQUESTS: Final = 64

HEAD_SECONDS: Final = 10.0

log = structlog.get_logger()


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 by uvicorn, that closes a connection whose request's head does not come to its end.

    uvicorn itself waits for it without an end: a few dozen such connections lock everybody out.
    """

    head_seconds: ClassVar[float] = HEAD_SECONDS

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the clock with the connection."""
        super().connection_made(transport)
        self._seen: RequestResponseCycle | None = None
        self._clock = self.loop.call_later(self.head_seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._clock.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        if self.conn.their_state is h11.IDLE and self.cycle is self._seen:
            self.transport.close()
            return
        self._seen = self.cycle
        self._clock = self.loop.call_later(self.head_seconds, self._look)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen; port 0 takes a free one. With a context: TLS only."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


class AppServer:
    """Serves one application. `what` it is, in words, and the `error` that tells what went wrong.

    No access log: addresses hold what people search for.
    """

    def __init__(
        self, app: ASGIApp, address: Address, *, name: str, what: str, error: type[Exception]
    ) -> None:
        self._app = app
        self._address = address
        self._name = name
        self._what = what
        self._error = error
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is bound; with port 0, the one that the system chose.

        Raises:
            the error: the server was not started.
        """
        if self._socket is None:
            raise self._error(f"{self._what} is not being served")
        port = self._socket.getsockname()[1]
        return int(port)

    @property
    def url(self) -> str:
        """The address for a browser."""
        host = self._address.host
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._address.tls else 'http'}://{shown}:{self.port}/"

    def start(self) -> None:
        """Bind the port and answer requests. Returns when they are answered.

        Raises:
            the error: naming the address and what is wrong with it.
        """
        self._socket = self._bind()
        self._server = uvicorn.Server(self._configuration())
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [self._socket]},
            name=self._name,
            daemon=True,
        )
        self._thread.start()
        self._await_start(self._server, self._thread)
        log.info("web.started", server=self._name, address=self.url)

    def stop(self) -> None:
        """Finish the answers in flight within a grace time, and close the port."""
        if self._server is None or self._thread is None or self._socket is None:
            return
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            self._server.force_exit = True
            self._thread.join(STOP_SECONDS)
        self._socket.close()
        self._server = self._thread = self._socket = None
        log.info("web.stopped", server=self._name)

    def _await_start(self, server: uvicorn.Server, thread: threading.Thread) -> None:
        step = 0.02
        for _ in range(int(START_SECONDS / step)):
            if server.started:
                return
            thread.join(step)
            if not thread.is_alive():
                break
        self.stop()
        raise self._error(f"{self._what} did not start on {self._address.host}")

    def _configuration(self) -> uvicorn.Config:
        configuration = uvicorn.Config(
            self._app,
            log_config=None,
            log_level="critical",  # failures are logged here, without what a request carried
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            http=ImpatientProtocol,
            loop="asyncio",
            limit_concurrency=CONCURRENT_REQUESTS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=5,
        )
        if self._address.tls is not None:
            configuration.load()
            configuration.ssl = self._address.tls
        return configuration

    def _bind(self) -> socket.socket:
        host, port = self._address.host, self._address.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
        except OSError as error:
            bound.close()
            raise self._error(
                f"{self._what} cannot be served on {host} port {port}: {error.strerror}"
            ) from error
        return bound
