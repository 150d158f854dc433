"""Web server of the viewer: viser on a fixed port, closed to other hosts."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import viser


class Server(viser.ViserServer):
    """viser's server without its share link: a camera's pictures never leave through a third party's tunnel."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        return None


def start_server(host: str, port: int, title: str) -> Server:
    """Serve on exactly this host and port (0 = any free one).

    Raises OSError, naming the port and how to choose another, where the port is taken or the address is not this
    machine's. (viser alone would move on to the next free port without a word, or wait for ever.)
    """
    _check_free(host, port)
    with _quiet():
        server = Server(host=host, port=port, label=title, verbose=False)
    if port and server.get_port() != port:  # somebody took it since the check
        stop_server(server)
        raise _taken(host, port)
    _refuse_other_origins(server, host)
    return server


def stop_server(server: Server) -> None:
    """Stop serving, free the port and end the threads of the server."""
    with _quiet():
        server.stop()


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port just freed is free
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
    """No banners of viser on the terminal: the caller says where the page is."""
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def _refuse_other_origins(server: Server, host: str) -> None:
    """Let only the viewer's own page connect.

    A web page of any site may open a WebSocket to 127.0.0.1, and browsers leave it to the server to look at its origin:
    without this every site that the user visits could watch the camera.
    """
    connections = server._websock_server

    async def check(client: Any) -> None:
        connection = connections._live_connections[client.client_id]
        headers = connection.request.headers if connection.request else {}
        if not is_own_page(headers.get("Origin"), headers.get("Host"), host):
            await connection.close(1008, "the viewer only talks to its own page")

    connections.on_client_connect(check)


def is_own_page(origin: str | None, requested_host: str | None, bound_host: str) -> bool:
    """Whether a connection with these headers comes from the page of a server bound to `bound_host`."""
    if origin is None:  # not a browser
        return True
    if requested_host is None or urlsplit(origin).netloc.lower() != requested_host.lower():
        return False
    # A site whose name was made to point at 127.0.0.1 has its own name as origin and as host.
    return not _is_loopback(bound_host) or _is_loopback(urlsplit(origin).hostname or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
