"""HTTP server of the explorer, on uvicorn."""

from __future__ import annotations

import logging
import socket

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pe_dense.apps.explorer.app import ExplorerApp, is_loopback
from pe_dense.apps.explorer.explorer import Explorer

SECURITY_HEADERS = {
    # The browser loads nothing from other hosts for this page, whatever its content.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",  # other pages cannot show what is served here
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
IDLE_SECONDS = 60  # without data before a request's headers are complete
SHUTDOWN_SECONDS = 5  # for requests in progress, after their computations were canceled


class ExplorerServer(uvicorn.Server):
    """Server of the explorer's page; :meth:`run` blocks until SIGINT, SIGTERM or :meth:`stop`.

    Args:
        explorer: computes what the page shows.
        host: IPv4 or IPv6 address to listen on; other machines cannot reach 127.0.0.1.
        port: 0 for any free one.

    Attributes:
        address: (host, port) that the server listens on.

    Raises:
        OSError: if the address does not exist on this machine, or the port is in use.
    """

    def __init__(self, explorer: Explorer, host: str = "127.0.0.1", port: int = 0):
        self._socket = _listen(host, port)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._app = ExplorerApp(explorer, loopback=is_loopback(self.address[0]))
        config = uvicorn.Config(
            self._app,
            http=_Protocol,
            loop="asyncio",
            ws="none",
            lifespan="off",
            headers=list(SECURITY_HEADERS.items()),
            server_header=False,
            proxy_headers=False,
            access_log=False,
            log_config=None,
            log_level=logging.CRITICAL,  # the application logs its own failures; what is left are malformed requests
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        super().__init__(config)

    def run(self) -> None:
        """Serve until SIGINT, SIGTERM or :meth:`stop`. The signal is raised again once the server has shut down."""
        super().run(sockets=[self._socket])

    def stop(self) -> None:
        """End :meth:`run`; may be called from any thread."""
        self.should_exit = True

    def close(self) -> None:
        """Free the port of a server that was never run."""
        self._socket.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cancel computations, then shut down.

        A thread that still runs a backbone when the interpreter exits would abort the process.
        """
        self._app.close()
        await super().shutdown(sockets)


class _Protocol(H11Protocol):
    """uvicorn's HTTP protocol with the security headers in answers to malformed requests, and a limit on idle time."""

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._limit_idle_time()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:  # within a request's headers
            self._limit_idle_time()

    def _limit_idle_time(self) -> None:
        # uvicorn cancels this timer when data comes; its own timer limits the time between requests only.
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(IDLE_SECONDS, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # ends the request whose body is malformed
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [
                *SECURITY_HEADERS.items(),
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Connection", "close"),
            ]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=msg.encode()),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener
