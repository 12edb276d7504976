"""A performance layer for programs that talk over WebSockets.

Public names load on first use, so that ``import penstock`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from penstock._version import __version__

if TYPE_CHECKING:
    from penstock.batch.batcher import MessageBatcher
    from penstock.batch.policy import BatchConfig
    from penstock.batch.processor import BatchProcessor
    from penstock.batch.receipt import Receipt
    from penstock.batch.stats import BatchStats
    from penstock.cache.cache import MessageCache
    from penstock.cache.entry import CacheEntry
    from penstock.cache.policy import EvictionPolicy
    from penstock.cache.stats import CacheStats
    from penstock.connection.accelerate import accelerate
    from penstock.connection.broadcast import broadcast
    from penstock.connection.connect import connect, unix_connect
    from penstock.connection.connection import Connection
    from penstock.errors import (
        BatcherClosed,
        BatcherFull,
        CallLost,
        CallTimeout,
        CertificateRefused,
        ConnectionDenied,
        ConnectionFailed,
        ConsumerTooSlow,
        DeliveryFailed,
        DeliveryUnknown,
        EnvelopeRefused,
        GraphQLClosed,
        GraphQLError,
        InvalidReply,
        LeaseReturned,
        LoadCycle,
        MessageDropped,
        MessageTypeError,
        PerformanceError,
        PoolClosed,
        PoolExhausted,
        RpcClosed,
        RpcError,
        SerializationError,
        SessionLost,
        TooManyCalls,
        WrongLoop,
    )
    from penstock.message import Message, MessageType, Priority
    from penstock.pool.config import ConnectionPoolConfig
    from penstock.pool.health import HealthChecker
    from penstock.pool.lease import PooledConnection
    from penstock.pool.pool import ConnectionPool
    from penstock.pool.stats import PoolStats
    from penstock.rpc.client import Rpc
    from penstock.rpc.consumer import Gap, Subscription
    from penstock.server.asgi import PenstockASGI
    from penstock.server.serve import Server, ServerConnection, serve, unix_serve
    from penstock.server.sessions import SessionConfig
    from penstock.wire.compression import Codec

_HOMES = {
    "BatchConfig": "penstock.batch.policy",
    "BatchProcessor": "penstock.batch.processor",
    "BatchStats": "penstock.batch.stats",
    "BatcherClosed": "penstock.errors",
    "BatcherFull": "penstock.errors",
    "CacheEntry": "penstock.cache.entry",
    "CacheStats": "penstock.cache.stats",
    "CallLost": "penstock.errors",
    "CallTimeout": "penstock.errors",
    "CertificateRefused": "penstock.errors",
    "Codec": "penstock.wire.compression",
    "Connection": "penstock.connection.connection",
    "ConnectionDenied": "penstock.errors",
    "ConnectionFailed": "penstock.errors",
    "ConnectionPool": "penstock.pool.pool",
    "ConnectionPoolConfig": "penstock.pool.config",
    "ConsumerTooSlow": "penstock.errors",
    "DeliveryFailed": "penstock.errors",
    "DeliveryUnknown": "penstock.errors",
    "EnvelopeRefused": "penstock.errors",
    "EvictionPolicy": "penstock.cache.policy",
    "Gap": "penstock.rpc.consumer",
    "GraphQLClosed": "penstock.errors",
    "GraphQLError": "penstock.errors",
    "HealthChecker": "penstock.pool.health",
    "InvalidReply": "penstock.errors",
    "LeaseReturned": "penstock.errors",
    "LoadCycle": "penstock.errors",
    "Message": "penstock.message",
    "MessageBatcher": "penstock.batch.batcher",
    "MessageCache": "penstock.cache.cache",
    "MessageDropped": "penstock.errors",
    "MessageType": "penstock.message",
    "MessageTypeError": "penstock.errors",
    "PenstockASGI": "penstock.server.asgi",
    "PerformanceError": "penstock.errors",
    "PoolClosed": "penstock.errors",
    "PoolExhausted": "penstock.errors",
    "PoolStats": "penstock.pool.stats",
    "PooledConnection": "penstock.pool.lease",
    "Priority": "penstock.message",
    "Receipt": "penstock.batch.receipt",
    "Rpc": "penstock.rpc.client",
    "RpcClosed": "penstock.errors",
    "RpcError": "penstock.errors",
    "SerializationError": "penstock.errors",
    "Server": "penstock.server.serve",
    "ServerConnection": "penstock.server.serve",
    "SessionConfig": "penstock.server.sessions",
    "SessionLost": "penstock.errors",
    "Subscription": "penstock.rpc.consumer",
    "TooManyCalls": "penstock.errors",
    "WrongLoop": "penstock.errors",
    "accelerate": "penstock.connection.accelerate",
    "broadcast": "penstock.connection.broadcast",
    "connect": "penstock.connection.connect",
    "serve": "penstock.server.serve",
    "unix_connect": "penstock.connection.connect",
    "unix_serve": "penstock.server.serve",
}

__all__ = [
    "BatchConfig",
    "BatchProcessor",
    "BatchStats",
    "BatcherClosed",
    "BatcherFull",
    "CacheEntry",
    "CacheStats",
    "CallLost",
    "CallTimeout",
    "CertificateRefused",
    "Codec",
    "Connection",
    "ConnectionDenied",
    "ConnectionFailed",
    "ConnectionPool",
    "ConnectionPoolConfig",
    "ConsumerTooSlow",
    "DeliveryFailed",
    "DeliveryUnknown",
    "EnvelopeRefused",
    "EvictionPolicy",
    "Gap",
    "GraphQLClosed",
    "GraphQLError",
    "HealthChecker",
    "InvalidReply",
    "LeaseReturned",
    "LoadCycle",
    "Message",
    "MessageBatcher",
    "MessageCache",
    "MessageDropped",
    "MessageType",
    "MessageTypeError",
    "PenstockASGI",
    "PerformanceError",
    "PoolClosed",
    "PoolExhausted",
    "PoolStats",
    "PooledConnection",
    "Priority",
    "Receipt",
    "Rpc",
    "RpcClosed",
    "RpcError",
    "SerializationError",
    "Server",
    "ServerConnection",
    "SessionConfig",
    "SessionLost",
    "Subscription",
    "TooManyCalls",
    "WrongLoop",
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
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
