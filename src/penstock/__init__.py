"""A performance layer for programs that talk over WebSockets.

Public names load on first use, so that ``import penstock`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from penstock._version import __version__

if TYPE_CHECKING:
    from penstock.batch.policy import BatchConfig
    from penstock.connection.accelerate import accelerate
    from penstock.connection.broadcast import broadcast
    from penstock.connection.connect import connect, unix_connect
    from penstock.connection.connection import Connection
    from penstock.errors import CertificateRefused, ConnectionFailed, PerformanceError
    from penstock.server.serve import Server, ServerConnection, serve, unix_serve

_HOMES = {
    "BatchConfig": "penstock.batch.policy",
    "CertificateRefused": "penstock.errors",
    "Connection": "penstock.connection.connection",
    "ConnectionFailed": "penstock.errors",
    "PerformanceError": "penstock.errors",
    "Server": "penstock.server.serve",
    "ServerConnection": "penstock.server.serve",
    "accelerate": "penstock.connection.accelerate",
    "broadcast": "penstock.connection.broadcast",
    "connect": "penstock.connection.connect",
    "serve": "penstock.server.serve",
    "unix_connect": "penstock.connection.connect",
    "unix_serve": "penstock.server.serve",
}

__all__ = [
    "BatchConfig",
    "CertificateRefused",
    "Connection",
    "ConnectionFailed",
    "PerformanceError",
    "Server",
    "ServerConnection",
    "__version__",
    "accelerate",
    "broadcast",
    "connect",
    "serve",
    "unix_connect",
    "unix_serve",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    module = import_module(home)
    # All names of that home at once: loading it has made `serve` the name of a subpackage.
    globals().update({known: getattr(module, known) for known in _HOMES if _HOMES[known] == home})
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
