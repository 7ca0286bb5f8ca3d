"""A free port for the server of the demo."""

from __future__ import annotations

import errno
import os
import socket

#: The ports that `free_port` tries if no port is given.
PORTS = range(7860, 7960)


def free_port(host: str, port: int | None = None) -> int:
    """A free port.

    Args:
        host: an address of this machine. An IPv6 address may have brackets.
        port: the port to check. None: the first free port of `PORTS`.

    Raises:
        ValueError: ``host`` is not an address of this machine.
        OSError: another program uses the port, only an administrator may use it, or no port of `PORTS` is free.
    """
    for one in PORTS if port is None else (port,):
        try:
            for needed in (host, "127.0.0.1"):  # Gradio tries the port there, whatever the host is
                _bind(needed, one)
        except socket.gaierror as error:
            raise ValueError(f"host is {host!r}, which is not an address: {error.strerror}") from error
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ValueError(f"host is {host!r}, which is not an address of this machine") from error
            if error.errno == errno.EACCES and port is not None:
                raise PermissionError(f"port is {one}, which only an administrator may use") from error
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):  # EACCES: Windows reserves ranges of ports
                raise
            continue
        return one
    if port is None:
        raise OSError(f"all ports from {PORTS[0]} to {PORTS[-1]} are in use: choose a free port")
    raise OSError(f"port {port} is in use by another program: choose another port, or none")


def in_url(host: str) -> str:
    """A host as it stands in an address of a page: IPv6 addresses have brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _bind(host: str, port: int) -> None:
    """Bind the port and release it. Raises the OSError of the socket."""
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    family, kind, protocol, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as one:
        if (
            os.name == "posix"
        ):  # else a port is refused for a minute after its use; on Windows the option has another meaning
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address)
