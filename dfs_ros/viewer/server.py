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
    """Server of viser without its share link, which would send images through a third party."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        return None


def start_server(host: str, port: int, title: str) -> Server:
    """Serve on exactly this host and port (0 = any free one).

    Raises OSError, with the port and a remedy, for a port in use or a foreign address. (viser alone would silently take
    the next free port, or wait for ever.)
    """
    _check_free(host, port)
    with _quiet():
        server = Server(host=host, port=port, label=title, verbose=False)
    if port and server.get_port() != port:  # taken by another process since the check
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


def _refuse_other_origins(server: Server, host: str) -> None:
    """Let only the viewer's own page connect.

    A web page of any site may open a WebSocket to 127.0.0.1, and browsers leave the check of its origin to the server:
    without it every visited site could watch the camera.
    """
    connections = server._websock_server

    async def check(client: Any) -> None:
        connection = connections._live_connections[client.client_id]
        headers = connection.request.headers if connection.request else {}
        if not is_own_page(headers.get("Origin"), headers.get("Host"), host):
            await connection.close(1008, "the viewer only talks to its own page")

    connections.on_client_connect(check)


def is_own_page(origin: str | None, requested_host: str | None, bound_host: str) -> bool:
    """True for headers of a connection from the own page of a server on `bound_host`."""
    if origin is None:  # not a browser
        return True
    if requested_host is None or urlsplit(origin).netloc.lower() != requested_host.lower():
        return False
    # A site whose name resolves to 127.0.0.1 has its own name as origin and as host.
    return not _is_loopback(bound_host) or _is_loopback(urlsplit(origin).hostname or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
