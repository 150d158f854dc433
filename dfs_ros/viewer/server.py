"""Web server of the viewer: viser on a fixed port, closed to other hosts."""

from __future__ import annotations

import contextlib
import errno
import inspect
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import viser
import websockets.asyncio.server

MAX_MESSAGE_BYTES = 2**18
"""Largest message that a page may send; those of the controls have some hundred bytes."""
_WAITING_MESSAGES = 16
_STARTING = threading.Lock()


class Server(viser.ViserServer):
    """Server of viser without its share link, which would send images through a third party."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        return None


def start_server(host: str, port: int, title: str, most_connections: int) -> Server:
    """Serve on exactly this host and port (0 = any free one), for at most `most_connections` pages at a time.

    Raises OSError, with the port and a remedy, for a port in use or a foreign address. (viser alone would silently take
    the next free port, or wait for ever.)
    """
    _check_free(host, port)
    with _quiet(), _guarded_handshakes(host, most_connections):
        server = Server(host=host, port=port, label=title, verbose=False)
    if port and server.get_port() != port:  # taken by another process since the check
        stop_server(server)
        raise _taken(host, port)
    return server


def stop_server(server: Server) -> None:
    """Stop serving, free the port and end the threads of the server."""
    with _quiet():
        server.stop()


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server: a port just freed is usable
            probe.bind(address)
    except socket.gaierror as error:
        raise OSError(f"viewer.host {host!r} is not an address of this machine: {error}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _taken(host, port) from error
        reason = "only root may use it" if error.errno == errno.EACCES else str(error.strerror or error)
        raise OSError(
            error.errno,
            f"the viewer cannot use {host}:{port}: {reason}; set viewer.host (127.0.0.1 = this machine only) and "
            "viewer.port (8080)",
        ) from error


def _taken(host: str, port: int) -> OSError:
    return OSError(
        errno.EADDRINUSE,
        f"the viewer cannot use port {port} on {host}: another program has it (perhaps another viewer); "
        "stop that one, or choose another with viewer.port (0 = any free port)",
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress viser's banners on the terminal; the caller prints the address."""
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


@contextlib.contextmanager
def _guarded_handshakes(host: str, most_connections: int) -> Iterator[None]:
    """Make servers that start within the block check each handshake and limit connections and messages.

    A web page of any site may open a WebSocket to 127.0.0.1, and browsers leave the check of its origin to the server:
    without it every visited site could watch the camera. viser has no hook in the handshake, before which nothing that
    a client sends is read; its call of `serve` is given one.
    """
    with _STARTING:
        serve = websockets.asyncio.server.serve
        websockets.asyncio.server.serve = partial(_serve, serve, host, most_connections)  # type: ignore[misc,assignment]
        try:
            yield
        finally:
            websockets.asyncio.server.serve = serve  # type: ignore[misc]


def _serve(
    serve: Callable[..., Any],
    bound_host: str,
    most: int,
    handler: Callable[[Any], Any],
    *arguments: Any,
    **options: Any,
) -> Any:
    """Call `serve` as viser does, with limits."""
    pages = options.pop("process_request")
    connected = 0

    async def admit(connection: Any, request: Any) -> Any:
        headers = request.headers
        if not is_own_page(headers.get("Origin"), headers.get("Host"), bound_host):
            return connection.respond(HTTPStatus.FORBIDDEN, "the viewer only talks to its own page\n")
        if headers.get("Upgrade", "").lower() == "websocket" and connected >= most:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, f"{connected} pages are open already\n")
        answer = pages(connection, request)
        return await answer if inspect.isawaitable(answer) else answer

    async def limited(connection: Any) -> None:
        nonlocal connected
        connected += 1
        try:
            if connected > most:  # handshakes at one time
                await connection.close(1013, "too many pages are open")
            else:
                await handler(connection)
        finally:
            connected -= 1

    return serve(
        limited,
        *arguments,
        **{**options, "process_request": admit, "max_size": MAX_MESSAGE_BYTES, "max_queue": _WAITING_MESSAGES},
    )


def is_own_page(origin: str | None, requested_host: str | None, bound_host: str) -> bool:
    """True for headers of a request by the own page of a server on `bound_host`, or by no browser."""
    if requested_host is None:
        return False
    # A site whose name resolves to 127.0.0.1 has its own name as origin and as host.
    if _is_loopback(bound_host) and not _is_loopback(_name_of(f"//{requested_host}")):
        return False
    return origin is None or (urlsplit(origin).netloc.lower() == requested_host.lower() and bool(_name_of(origin)))


def _name_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
