"""The explorer's web application: three static files and a small API. It loads nothing from other hosts."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
from collections.abc import Awaitable, Callable
from importlib.resources import files
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import urlsplit

from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pe_dense.apps.explorer.explorer import Explorer, InvalidRequest
from pe_dense.apps.explorer.jobs import JobCanceled, JobQueue, QueueFull
from pe_dense.utils.errors import UserError, first_line
from pe_dense.utils.image import ImageError
from pe_dense.visualization.figures import word_colors, word_heat, word_labels, word_sheet

MAX_BYTES = 32 << 20
MAX_RUNS = 16  # requests that run a backbone or wait for it; a page has at most 10 at a time
MAX_IMAGE_REQUESTS = 8  # each may have an upload of MAX_BYTES in memory
MAX_WORDS, MAX_WORD_LENGTH = 20, 100  # of a request, synonyms included; characters
READ_SECONDS = 60  # that the next part of an upload may take
_PAGE = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/words.js": ("words.js", "text/javascript"),
}
T = TypeVar("T")
_logger = logging.getLogger(__name__)


class ExplorerApp:
    """ASGI application of the explorer.

    Backbones run one request at a time, and so does image decoding, which takes up to a few hundred MB. The two have
    separate queues, so that images can be uploaded and shown while a backbone runs.

    Args:
        explorer: computes what the page shows.
        loopback: the server listens on a loopback address: refuse requests for any other host name, which a page of
            another site could have bound to this address.
    """

    def __init__(self, explorer: Explorer, *, loopback: bool):
        self.explorer = explorer
        self.runs, self.images = JobQueue(MAX_RUNS), JobQueue(MAX_IMAGE_REQUESTS)
        routes = [Route(path, _static(*page), methods=["GET"]) for path, page in _PAGE.items()]
        routes += [
            Route("/describe", self._describe, methods=["GET"]),
            Route("/image", self._get_image, methods=["GET"]),
            Route("/image", self._post_image, methods=["POST"]),
            Route("/colors", self._colors, methods=["GET"]),
            Route("/similarity", self._similarity, methods=["GET"]),
            Route("/clusters", self._clusters, methods=["GET"]),
            Route("/object", self._object, methods=["GET"]),
            Route("/words", self._words, methods=["GET"]),
            Route("/words.png", self._word_sheet, methods=["GET"]),
        ]
        handlers = {
            HTTPException: lambda request, error: _error(error.status_code, error.detail),
            InvalidRequest: lambda request, error: _error(400, str(error)),
            UserError: lambda request, error: _error(400, str(error)),
            QueueFull: lambda request, error: _error(503, "the server is busy; try again", {"Retry-After": "1"}),
            JobCanceled: lambda request, error: _error(503, "the server is shutting down"),
            ClientDisconnect: lambda request, error: _error(400, "the client disconnected"),  # reaches nobody
            Exception: _internal_error,
        }
        self._app = _Guard(Starlette(routes=routes, exception_handlers=handlers), loopback=loopback)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def close(self) -> None:
        """Cancel all computations."""
        self.runs.close()
        self.images.close()

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(self.explorer.describe() | {"max_bytes": MAX_BYTES})

    async def _post_image(self, request: Request) -> Response:
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            raise HTTPException(411, "Content-Length is required")
        if int(length) > MAX_BYTES:
            raise HTTPException(413, f"the file is {int(length) / 2**20:.0f} MB; the limit is {MAX_BYTES >> 20} MB")
        with self.images.place():
            data = await _read_body(request)
            try:
                name = await _unless_disconnected(request, self.images.run(self.explorer.add_image, data))
            except ImageError as error:
                raise HTTPException(415, str(error)) from error
        return JSONResponse({"image": name})

    async def _get_image(self, request: Request) -> Response:
        name = _Query(request).text("image")
        return await self._drawn(request, self.images, self.explorer.image, name)

    @staticmethod
    async def _drawn(request: Request, queue: JobQueue, draw: Callable[..., Image.Image], *args) -> Response:
        """Draw a picture when its turn in a queue comes."""
        with queue.place():
            return _picture(await _unless_disconnected(request, queue.run(lambda: _png(draw(*args)))))

    async def _colors(self, request: Request) -> Response:
        query = _Query(request)
        args = (*query.place(), query.text("together", "").split())
        return await self._drawn(request, self.runs, self.explorer.colors, *args)

    async def _clusters(self, request: Request) -> Response:
        query = _Query(request)
        args = (*query.place(), query.text("together", "").split(), query.number("count", int))
        return await self._drawn(request, self.runs, self.explorer.clusters, *args)

    async def _object(self, request: Request) -> Response:
        query = _Query(request)
        args = (*query.place(), query.text("algorithm"), query.number("tau", float))
        return await self._drawn(request, self.runs, self.explorer.object, *args)

    async def _similarity(self, request: Request) -> Response:
        query = _Query(request)
        args = (*query.place(), query.text("source"), (query.number("x", float), query.number("y", float)))
        with self.runs.place():
            content, low, high = await _unless_disconnected(request, self.runs.run(self._draw_similarity, *args))
        return _picture(content, {"X-Cosine": f"{low:.2f} to {high:.2f}"})

    def _draw_similarity(self, *args) -> tuple[bytes, float, float]:
        picture, low, high = self.explorer.similarity(*args)
        return _png(picture), low, high

    async def _words(self, request: Request) -> Response:
        with self.runs.place():
            job = self.runs.run(self._draw_words, *_Query(request).words())
            return JSONResponse(await _unless_disconnected(request, job))

    def _draw_words(self, *args) -> dict:
        names, photo, maps, truncated = self.explorer.words(*args)
        *shares, none = maps.shares
        words = []
        for name, color, share, cosines in zip(names, word_colors(len(names)), shares, maps.cosines, strict=True):
            heat, low, high = word_heat(photo, cosines)
            color = "#{:02x}{:02x}{:02x}".format(*color)
            words.append(dict(name=name, color=color, share=share, low=low, high=high, heat=_data_url(heat)))
        notes = [f"'{word}' is longer than the model's context and was truncated" for word in truncated]
        return dict(words=words, labels=_data_url(word_labels(photo, maps)), none=none, notes=notes)

    async def _word_sheet(self, request: Request) -> Response:
        return await self._drawn(request, self.runs, self._draw_word_sheet, *_Query(request).words())

    def _draw_word_sheet(self, tower: str, size: int, image: str, words: str, patches: str, *others) -> Image.Image:
        names, photo, maps, _ = self.explorer.words(tower, size, image, words, patches, *others)
        return word_sheet("", photo, names, maps, f"{tower}, {patches} patches, input {size} px")


def is_loopback(host: str) -> bool:
    """Return whether an address is a loopback address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Guard:
    """Reject cross-site requests, and close the connection after each request with a body.

    What follows a body that was not read, or is longer than declared, must not be taken for the next request.
    """

    def __init__(self, app: ASGIApp, *, loopback: bool):
        self.app = app
        self.loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        has_body = "content-length" in headers or "transfer-encoding" in headers

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        app = self._refusal(headers) or self.app
        await app(scope, receive, send_and_close if has_body else send)

    def _refusal(self, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self.loopback and not is_loopback(_host_name(host)):
            return _error(403, f"this server does not answer for host {host!r}")
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return _error(403, "requests from other origins are not allowed")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _error(403, "requests from other sites are not allowed")
        if "content-length" in headers and "transfer-encoding" in headers:
            return _error(400, "Content-Length and Transfer-Encoding exclude each other")
        return None


class _Query:
    """Return the query parameters of a request; the last value of a repeated one is used."""

    def __init__(self, request: Request):
        self._values, self._path = dict(request.query_params), request.url.path

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.get(name, default)
        if value is None:
            raise HTTPException(400, f"{self._path} needs the parameter {name}")
        return value

    def number(self, name: str, kind: type[T]) -> T:
        text = self.text(name)
        try:
            return kind(text)
        except ValueError as error:
            raise HTTPException(400, f"{name} must be of type {kind.__name__}, got {text[:80]!r}") from error

    def place(self) -> tuple[str, int, int, str]:
        """Parse backbone, layer, size and image."""
        return self.text("tower"), self.number("layer", int), self.number("size", int), self.text("image")

    def words(self) -> tuple[str, int, str, str, str, str | None, float]:
        """Parse the arguments of :meth:`~pe_dense.apps.explorer.explorer.Explorer.words`."""
        words = self.text("words")
        parts = words.replace(";", ",").split(",")
        if len(parts) > MAX_WORDS:
            raise HTTPException(400, f"{len(parts)} words are too many: at most {MAX_WORDS} are compared")
        longest = max((part.strip() for part in parts), key=len)
        if len(longest) > MAX_WORD_LENGTH:
            told = f"word '{longest[:20]}...' has {len(longest)} characters"
            raise HTTPException(400, f"{told}; at most {MAX_WORD_LENGTH} are allowed")
        place = self.text("tower"), self.number("size", int), self.text("image"), words
        patches, proxy = self.text("patches", "pooled"), self.text("proxy", "") or None
        return *place, patches, proxy, self.number("background", float) if "background" in self._values else 0.0


async def _read_body(request: Request) -> bytes:
    """Read the request body, whose declared length must be within the limit.

    Raises:
        ClientDisconnect: if the connection ends before the body does.
        HTTPException: if no data arrives for READ_SECONDS.
    """
    body = bytearray()
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), READ_SECONDS)
        except asyncio.TimeoutError as error:
            raise HTTPException(408, f"no data within {READ_SECONDS} s") from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _unless_disconnected(request: Request, job: Awaitable[T]) -> T:
    """Await a job; cancel it when the client closes the connection.

    Raises:
        ClientDisconnect: if the client did so.
    """
    tasks = asyncio.ensure_future(job), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)  # the place in the queue is free when the job has ended


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _static(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = files(__package__).joinpath("page", name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return endpoint


def _png(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, "PNG", compress_level=1)
    return content.getvalue()


def _data_url(picture: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(_png(picture)).decode()}"


def _picture(content: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(content, media_type="image/png", headers=headers)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": message}, status, headers=headers)


async def _internal_error(request: Request, error: Exception) -> Response:
    """Report a failure, for example too little memory for a backbone at this size, in one line; log its traceback."""
    _logger.error("%s failed", request.url.path, exc_info=error)
    return _error(500, f"{type(error).__name__}: {first_line(error)}")


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
