"""Every exception of penstock's own, in one tree.

::

    PerformanceError
    ├── ConnectionFailed (OSError)                  the peer could not be reached
    │   ├── CertificateRefused (ssl.SSLCertVerificationError)
    │   └── ConnectionDenied                        the peer said no, and would say so again
    ├── PoolExhausted (TimeoutError)                no connection became free in time
    ├── PoolClosed (RuntimeError)                   the pool lends no more
    ├── LeaseReturned (RuntimeError)                a connection used after it was returned
    ├── SerializationError (ValueError)             a message that no frame can carry
    ├── MessageTypeError (TypeError)                a message that is neither text nor bytes
    ├── EnvelopeRefused (RuntimeError)              acknowledgement was asked for, and the peer cannot give it
    ├── DeliveryUnknown                             the peer closed before it told that it had taken everything
    ├── SessionLost (websockets.ConnectionClosedError)
    │                                               a connection that broke, and could not be resumed
    ├── BatcherFull (RuntimeError)                  a message refused because too many wait to be batched
    ├── BatcherClosed (RuntimeError)                the batcher takes no more
    ├── BatcherReentered (RuntimeError)             a deliver that waits for its own batcher
    ├── MessageDropped                              a message that was accepted, and will not be delivered
    │   └── DeliveryFailed                          ... because each attempt to deliver it failed
    ├── RpcError                                    the server has answered a call with an error
    ├── CallTimeout (TimeoutError)                  a call was not answered in time
    ├── CallLost (websockets.ConnectionClosedError) the connection was lost before a call was answered
    ├── TooManyCalls (RuntimeError)                 a call refused because too many wait for their answers
    ├── ConsumerTooSlow                             a subscription ended because its events were not taken
    ├── RpcClosed (RuntimeError)                    the client takes no more calls
    ├── GraphQLError                                ... or a GraphQL operation
    ├── GraphQLClosed                               the server closed because GraphQL's protocol was not kept to
    ├── InvalidReply (ValueError)                   an answer that Python cannot hold
    ├── LimitReached (RuntimeError)                 a message refused because too much is pending, to all servers
    ├── MiddlewareClosed (RuntimeError)             the middleware takes no more
    ├── SendingFailed                               messages that penstock.sync had queued, and could not send
    ├── WaitTimeout (TimeoutError)                  a call of penstock.sync that took too long
    ├── LoopEnded (RuntimeError)                    ... or whose event loop has ended
    ├── LoadCycle (RuntimeError)                    a loader that waits for itself
    ├── ConfigError (ValueError)                    a configuration that cannot be used
    └── WrongLoop (RuntimeError)                    a connection, pool or batcher used outside its event loop
        ├── BlockingCall                            a call of penstock.sync that would block an event loop
        └── InheritedByFork                         ... or on an object of the parent process

What goes wrong *on* a connection raises the exceptions of the ``websockets`` library (``ConnectionClosed`` and its
siblings), because a program that moves over already handles them.
"""

from __future__ import annotations

from penstock.errors.calls import (
    CallLost,
    CallTimeout,
    ConsumerTooSlow,
    GraphQLClosed,
    GraphQLError,
    InvalidReply,
    LoadCycle,
    RpcClosed,
    RpcError,
    TooManyCalls,
)
from penstock.errors.connections import (
    CertificateRefused,
    ConnectionDenied,
    ConnectionFailed,
    DeliveryUnknown,
    EnvelopeRefused,
    LeaseReturned,
    PoolClosed,
    PoolExhausted,
    SessionLost,
)
from penstock.errors.messages import (
    BatcherClosed,
    BatcherFull,
    BatcherReentered,
    DeliveryFailed,
    LimitReached,
    MessageDropped,
    MessageTypeError,
    MiddlewareClosed,
    SendingFailed,
    SerializationError,
)
from penstock.errors.program import (
    BlockingCall,
    ConfigError,
    ConfigProblem,
    InheritedByFork,
    LoopEnded,
    WaitTimeout,
    WrongLoop,
)
from penstock.errors.root import PerformanceError

__all__ = [
    "BatcherClosed",
    "BatcherFull",
    "BatcherReentered",
    "BlockingCall",
    "CallLost",
    "CallTimeout",
    "CertificateRefused",
    "ConfigError",
    "ConfigProblem",
    "ConnectionDenied",
    "ConnectionFailed",
    "ConsumerTooSlow",
    "DeliveryFailed",
    "DeliveryUnknown",
    "EnvelopeRefused",
    "GraphQLClosed",
    "GraphQLError",
    "InheritedByFork",
    "InvalidReply",
    "LeaseReturned",
    "LimitReached",
    "LoadCycle",
    "LoopEnded",
    "MessageDropped",
    "MessageTypeError",
    "MiddlewareClosed",
    "PerformanceError",
    "PoolClosed",
    "PoolExhausted",
    "RpcClosed",
    "RpcError",
    "SendingFailed",
    "SerializationError",
    "SessionLost",
    "TooManyCalls",
    "WaitTimeout",
    "WrongLoop",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # where people find them, and what tracebacks name
