"""A performance layer for programs that talk over WebSockets.

Public names load on first use, so that ``import penstock`` costs next to nothing. `Dashboard` and `SharedTier`, which
need extras, are imported by name alone: they are not in ``__all__``, so that ``help(penstock)`` needs none.
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
    from penstock.cache.shared.stats import SharedStats
    from penstock.cache.shared.tier import SharedTier as SharedTier
    from penstock.cache.stats import CacheStats
    from penstock.config.performance import PerformanceConfig
    from penstock.config.sections import (
        AlertsConfig,
        CacheConfig,
        EnvelopeConfig,
        FallbackConfig,
        LimitsConfig,
        MetricsConfig,
        RpcConfig,
        SendingConfig,
    )
    from penstock.connection.accelerate import accelerate
    from penstock.connection.broadcast import broadcast
    from penstock.connection.connect import connect, unix_connect
    from penstock.connection.connection import Connection
    from penstock.dashboard.dashboard import Dashboard as Dashboard
    from penstock.errors import (
        BatcherClosed,
        BatcherFull,
        BatcherReentered,
        BlockingCall,
        CallLost,
        CallTimeout,
        CertificateRefused,
        ConfigError,
        ConfigProblem,
        ConnectionDenied,
        ConnectionFailed,
        ConsumerTooSlow,
        DeliveryFailed,
        DeliveryUnknown,
        EnvelopeRefused,
        GraphQLClosed,
        GraphQLError,
        InheritedByFork,
        InvalidReply,
        LeaseReturned,
        LimitReached,
        LoadCycle,
        LoopEnded,
        MessageDropped,
        MessageTypeError,
        MiddlewareClosed,
        PerformanceError,
        PoolClosed,
        PoolExhausted,
        RpcClosed,
        RpcError,
        SendingFailed,
        SerializationError,
        SessionLost,
        TooManyCalls,
        WaitTimeout,
        WrongLoop,
    )
    from penstock.manager.manager import PerformanceManager
    from penstock.manager.switch import Mode, Stage
    from penstock.message import Message, MessageType, Priority
    from penstock.metrics.alerts.manager import AlertManager
    from penstock.metrics.alerts.rules import AlertRule
    from penstock.metrics.collector import MetricsCollector
    from penstock.middleware.middleware import PerformanceMiddleware
    from penstock.middleware.stats import PerformanceStats
    from penstock.pool.config import ConnectionPoolConfig
    from penstock.pool.health import HealthChecker
    from penstock.pool.lease import PooledConnection
    from penstock.pool.pool import ConnectionPool
    from penstock.pool.stats import PoolStats
    from penstock.protocols.batching import Batching
    from penstock.protocols.policy import CachePolicy
    from penstock.rpc.consumer import Gap, Subscription
    from penstock.rpc.graphql import GraphQLRpc
    from penstock.rpc.idjson import IdJsonRpc
    from penstock.rpc.jsonrpc import Rpc
    from penstock.rpc.stats import RpcStats
    from penstock.server.asgi import PenstockASGI
    from penstock.server.budget import SessionBudget
    from penstock.server.connections import ServerConnection
    from penstock.server.serve import Server, serve, unix_serve
    from penstock.server.sessions import SessionConfig
    from penstock.wire.compression import Codec

_HOMES = {
    "AlertManager": "penstock.metrics.alerts.manager",
    "AlertRule": "penstock.metrics.alerts.rules",
    "AlertsConfig": "penstock.config.sections",
    "BatchConfig": "penstock.batch.policy",
    "BatchProcessor": "penstock.batch.processor",
    "BatchStats": "penstock.batch.stats",
    "BatcherClosed": "penstock.errors",
    "BatcherFull": "penstock.errors",
    "BatcherReentered": "penstock.errors",
    "Batching": "penstock.protocols.batching",
    "BlockingCall": "penstock.errors",
    "CacheConfig": "penstock.config.sections",
    "CacheEntry": "penstock.cache.entry",
    "CachePolicy": "penstock.protocols.policy",
    "CacheStats": "penstock.cache.stats",
    "CallLost": "penstock.errors",
    "CallTimeout": "penstock.errors",
    "CertificateRefused": "penstock.errors",
    "Codec": "penstock.wire.compression",
    "ConfigError": "penstock.errors",
    "ConfigProblem": "penstock.errors",
    "Connection": "penstock.connection.connection",
    "ConnectionDenied": "penstock.errors",
    "ConnectionFailed": "penstock.errors",
    "ConnectionPool": "penstock.pool.pool",
    "ConnectionPoolConfig": "penstock.pool.config",
    "ConsumerTooSlow": "penstock.errors",
    "Dashboard": "penstock.dashboard.dashboard",
    "DeliveryFailed": "penstock.errors",
    "DeliveryUnknown": "penstock.errors",
    "EnvelopeConfig": "penstock.config.sections",
    "EnvelopeRefused": "penstock.errors",
    "EvictionPolicy": "penstock.cache.policy",
    "FallbackConfig": "penstock.config.sections",
    "Gap": "penstock.rpc.consumer",
    "GraphQLClosed": "penstock.errors",
    "GraphQLError": "penstock.errors",
    "GraphQLRpc": "penstock.rpc.graphql",
    "HealthChecker": "penstock.pool.health",
    "IdJsonRpc": "penstock.rpc.idjson",
    "InheritedByFork": "penstock.errors",
    "InvalidReply": "penstock.errors",
    "LeaseReturned": "penstock.errors",
    "LimitReached": "penstock.errors",
    "LimitsConfig": "penstock.config.sections",
    "LoadCycle": "penstock.errors",
    "LoopEnded": "penstock.errors",
    "Message": "penstock.message",
    "MessageBatcher": "penstock.batch.batcher",
    "MessageCache": "penstock.cache.cache",
    "MessageDropped": "penstock.errors",
    "MessageType": "penstock.message",
    "MessageTypeError": "penstock.errors",
    "MetricsCollector": "penstock.metrics.collector",
    "MetricsConfig": "penstock.config.sections",
    "MiddlewareClosed": "penstock.errors",
    "Mode": "penstock.manager.switch",
    "PenstockASGI": "penstock.server.asgi",
    "PerformanceConfig": "penstock.config.performance",
    "PerformanceError": "penstock.errors",
    "PerformanceManager": "penstock.manager.manager",
    "PerformanceMiddleware": "penstock.middleware.middleware",
    "PerformanceStats": "penstock.middleware.stats",
    "PoolClosed": "penstock.errors",
    "PoolExhausted": "penstock.errors",
    "PoolStats": "penstock.pool.stats",
    "PooledConnection": "penstock.pool.lease",
    "Priority": "penstock.message",
    "Receipt": "penstock.batch.receipt",
    "Rpc": "penstock.rpc.jsonrpc",
    "RpcClosed": "penstock.errors",
    "RpcConfig": "penstock.config.sections",
    "RpcError": "penstock.errors",
    "RpcStats": "penstock.rpc.stats",
    "SendingConfig": "penstock.config.sections",
    "SendingFailed": "penstock.errors",
    "SerializationError": "penstock.errors",
    "Server": "penstock.server.serve",
    "ServerConnection": "penstock.server.connections",
    "SessionBudget": "penstock.server.budget",
    "SessionConfig": "penstock.server.sessions",
    "SessionLost": "penstock.errors",
    "SharedStats": "penstock.cache.shared.stats",
    "SharedTier": "penstock.cache.shared.tier",
    "Stage": "penstock.manager.switch",
    "Subscription": "penstock.rpc.consumer",
    "TooManyCalls": "penstock.errors",
    "WaitTimeout": "penstock.errors",
    "WrongLoop": "penstock.errors",
    "accelerate": "penstock.connection.accelerate",
    "broadcast": "penstock.connection.broadcast",
    "connect": "penstock.connection.connect",
    "serve": "penstock.server.serve",
    "unix_connect": "penstock.connection.connect",
    "unix_serve": "penstock.server.serve",
}

__all__ = [
    "AlertManager",
    "AlertRule",
    "AlertsConfig",
    "BatchConfig",
    "BatchProcessor",
    "BatchStats",
    "BatcherClosed",
    "BatcherFull",
    "BatcherReentered",
    "Batching",
    "BlockingCall",
    "CacheConfig",
    "CacheEntry",
    "CachePolicy",
    "CacheStats",
    "CallLost",
    "CallTimeout",
    "CertificateRefused",
    "Codec",
    "ConfigError",
    "ConfigProblem",
    "Connection",
    "ConnectionDenied",
    "ConnectionFailed",
    "ConnectionPool",
    "ConnectionPoolConfig",
    "ConsumerTooSlow",
    "DeliveryFailed",
    "DeliveryUnknown",
    "EnvelopeConfig",
    "EnvelopeRefused",
    "EvictionPolicy",
    "FallbackConfig",
    "Gap",
    "GraphQLClosed",
    "GraphQLError",
    "GraphQLRpc",
    "HealthChecker",
    "IdJsonRpc",
    "InheritedByFork",
    "InvalidReply",
    "LeaseReturned",
    "LimitReached",
    "LimitsConfig",
    "LoadCycle",
    "LoopEnded",
    "Message",
    "MessageBatcher",
    "MessageCache",
    "MessageDropped",
    "MessageType",
    "MessageTypeError",
    "MetricsCollector",
    "MetricsConfig",
    "MiddlewareClosed",
    "Mode",
    "PenstockASGI",
    "PerformanceConfig",
    "PerformanceError",
    "PerformanceManager",
    "PerformanceMiddleware",
    "PerformanceStats",
    "PoolClosed",
    "PoolExhausted",
    "PoolStats",
    "PooledConnection",
    "Priority",
    "Receipt",
    "Rpc",
    "RpcClosed",
    "RpcConfig",
    "RpcError",
    "RpcStats",
    "SendingConfig",
    "SendingFailed",
    "SerializationError",
    "Server",
    "ServerConnection",
    "SessionBudget",
    "SessionConfig",
    "SessionLost",
    "SharedStats",
    "Stage",
    "Subscription",
    "TooManyCalls",
    "WaitTimeout",
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
