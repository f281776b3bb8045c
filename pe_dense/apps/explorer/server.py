"""The page's server: three files, photos in, pictures out. Nothing is fetched from or sent to anywhere else."""

from __future__ import annotations

import io
import json
import logging
import socket
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from pe_dense.apps.explorer.explorer import Explorer

MAX_BYTES = 32 << 20
_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    # Whatever a page is made to do, its browser asks no other server for anything.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",  # nor may other pages show what is here
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_logger = logging.getLogger(__name__)


def make_server(explorer: Explorer, host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """A server of the page; its ``serve_forever`` starts, ``server_address`` tells the port.

    Args:
        explorer: what is explored.
        host: address to listen on, of IPv4 or IPv6; other machines can't reach 127.0.0.1.
        port: 0 for any that is free.

    Raises:
        OSError: if there is no such address here, or the port is taken.
    """
    return (_ServerV6 if ":" in host else _Server)((host, port), partial(_Handler, explorer))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _ServerV6(_Server):
    address_family = socket.AF_INET6


class _Refusal(Exception):
    def __init__(self, status: HTTPStatus, message: str):
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # s, of a connection on which nothing comes

    def __init__(self, explorer: Explorer, *arguments):
        self.explorer = explorer
        super().__init__(*arguments)  # answers all that the connection asks

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args) -> None:
        _logger.debug(format, *args)

    def _answer(self, method) -> None:
        """Run a method; what it refuses, or fails in, becomes a line of JSON."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body that was not read must not pass for the next request
        try:
            try:
                self._check_origin()
                method()
            except _Refusal as refusal:
                self._send_json({"error": str(refusal)}, refusal.status)
            except ValueError as error:
                self._send_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
            except OSError:
                raise
            except Exception as error:  # as memory that does not suffice for this tower at this size
                _logger.exception("%s failed", self.path)
                told = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                self._send_json({"error": told}, HTTPStatus.INTERNAL_SERVER_ERROR)
        except OSError:  # the page asked for something else meanwhile, or is gone
            self.close_connection = True

    def _check_origin(self) -> None:
        """Refuse what other web pages make the browser ask for, under this server's or another name."""
        host = self.headers.get("Host", "")
        bound = self.server.server_address[0]
        if is_loopback(bound) and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            raise _Refusal(HTTPStatus.FORBIDDEN, f"this page is not served as {host}")
        if self.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise _Refusal(HTTPStatus.FORBIDDEN, "other pages may not ask here")

    def _get(self) -> None:
        url = urlsplit(self.path)
        if url.path in _PAGE:
            name, kind = _PAGE[url.path]
            self._send(files(__package__).joinpath("page", name).read_bytes(), kind)
            return
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            if url.path == "/describe":
                self._send_json(self.explorer.describe() | {"max_bytes": MAX_BYTES})
            elif url.path == "/photo":
                self._send_picture(self.explorer.photo(query["photo"]))
            elif url.path == "/colours":
                self._send_picture(self.explorer.colours(*_place(query), query.get("together", "").split()))
            elif url.path == "/similarity":
                point = float(query["x"]), float(query["y"])
                picture, low, high = self.explorer.similarity(*_place(query), query["source"], point)
                self._send_picture(picture, {"X-Cosine": f"{low:.2f} to {high:.2f}"})
            else:
                raise _Refusal(HTTPStatus.NOT_FOUND, f"nothing at {url.path}")
        except KeyError as error:
            raise _Refusal(HTTPStatus.BAD_REQUEST, f"{url.path} needs {error.args[0]}") from error

    def _post(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/photo":
            raise _Refusal(HTTPStatus.NOT_FOUND, f"nothing at {self.path}")
        if not length.isdigit():
            raise _Refusal(HTTPStatus.LENGTH_REQUIRED, "the length of the file is not told")
        if int(length) > MAX_BYTES:
            raise _Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the file has {int(length) / 2**20:.0f} MB, more than {MAX_BYTES >> 20} MB",
            )
        try:
            name = self.explorer.add_photo(self.rfile.read(int(length)))
        except ValueError as error:
            raise _Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error)) from error
        self._send_json({"photo": name})

    def _send_picture(self, picture: Image.Image, headers: dict[str, str] | None = None) -> None:
        content = io.BytesIO()
        picture.save(content, "PNG", compress_level=1)
        self._send(content.getvalue(), "image/png", headers=headers)

    def _send_json(self, value: dict, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(
        self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        own = {"Content-Type": kind, "Content-Length": str(len(content))}
        if self.close_connection:
            own["Connection"] = "close"
        for name, value in (_HEADERS | own | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _place(query: dict[str, str]) -> tuple[str, int, int, str]:
    """Tower, layer, size and photo of a request."""
    return query["tower"], int(query["layer"]), int(query["size"]), query["photo"]
