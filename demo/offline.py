"""No network but this machine's own; `make space-check` copies this file to sitecustomize.py."""

from __future__ import annotations

import errno
import ipaddress
import sys

SENDS = {"socket.connect", "socket.sendto", "socket.sendmsg"}  # arguments: socket, address
LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname"}  # arguments: host, ...


def refuse(event: str, arguments: tuple) -> None:
    """An audit hook that raises OSError where a connection would leave the machine."""
    if event in SENDS:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a path for Unix sockets
    elif event in LOOKUPS:
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if isinstance(host, str) and not _here(host):
        raise OSError(errno.ENETUNREACH, f"the start needs no network, yet asked for {host}")


def _here(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


if __name__ == "sitecustomize":
    sys.addaudithook(refuse)
