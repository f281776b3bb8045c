"""A running explorer server and requests to it; shared by the tests of the explorer."""

import http.client
import json
import socket
from contextlib import contextmanager, suppress
from threading import Thread
from urllib.parse import urlencode

from pe_dense.apps.explorer import ExplorerServer


@contextmanager
def serving(explorer, host="127.0.0.1"):
    server = ExplorerServer(explorer, host)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(60)
    assert not thread.is_alive()


def request(address, path, method="GET", body=None, headers=(), **query):
    """Status, content (decoded if it is JSON) and headers of a response."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.request(method, f"{path}?{urlencode(query)}" if query else path, body, dict(headers))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.getheader("Content-Type") == "application/json":
        content = json.loads(content)
    return response.status, content, response.headers


def send_raw(address, data, *, end=False):
    """All that the server answers to these bytes until it closes the connection.

    Args:
        address: (host, port) of the server.
        data: what is sent.
        end: also close the sending direction, as a client does that has nothing more to send.
    """
    parts = []
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):  # the server closes the connection with data unread
            while part := connection.recv(1 << 16):
                parts.append(part)
    return b"".join(parts)
