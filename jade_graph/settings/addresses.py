"""Addresses to listen on, and the names that a request may call them by.

Invariant: a `Host` header is read by its grammar or not at all: whatever is odd about it names nobody.
"""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?))(?::(?P<port>[0-9]{1,5}))?"
)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def named(header: str) -> str | None:
    """The host that a `Host` header names, without its port; None for what is no host with at most a port."""
    found = _HOST.fullmatch(header)
    if found is None or int(found["port"] or 0) > 65535:
        return None
    return (found["six"] or found["name"]).lower()


def calls_loopback(header: str) -> bool:
    """Whether a `Host` header names this machine's own address."""
    name = named(header)
    return name is not None and is_loopback(name)
