"""Errors carry facts, and say what is wrong and what to do."""

from __future__ import annotations

import pickle
import ssl

import pytest
from websockets.frames import Close

import penstock
from penstock import errors
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

PROBLEMS = (
    ConfigProblem("pool.max_total", "0", "must be at least 1", "PENSTOCK_POOL__MAX_TOTAL"),
    ConfigProblem("pol", "", "there is no such section", "penstock.toml: pol", "pool"),
    ConfigProblem("", "", "is not TOML", "penstock.toml"),
)

EXAMPLES: list[tuple[PerformanceError, dict[str, object], list[str]]] = [
    (PerformanceError(), {}, []),
    (
        ConfigError(PROBLEMS[:1]),
        {"problems": PROBLEMS[:1]},
        ["pool.max_total=0: must be at least 1 (PENSTOCK_POOL__MAX_TOTAL)"],
    ),
    (
        ConfigError(PROBLEMS),
        {"problems": PROBLEMS},
        [
            "3 problems:",
            "pol: there is no such section; did you mean pool? (penstock.toml: pol)",
            "\n  penstock.toml is not TOML",
        ],
    ),
    (
        LimitReached(3, None, 1000, 900),
        {"messages": 3, "max_messages": None, "bytes": 1000, "max_bytes": 900},
        ["3 messages (1000 bytes) are pending", "max_pending_bytes=900", "limits.on_limit='wait'"],
    ),
    (MiddlewareClosed(), {}, ["the middleware is closed; make another"]),
    (
        ConnectionFailed("ws://nowhere", "no route to host"),
        {"url": "ws://nowhere", "reason": "no route to host"},
        ["cannot connect to ws://nowhere", "no route to host"],
    ),
    (
        CertificateRefused("wss://self.signed", "self-signed certificate"),
        {"url": "wss://self.signed", "reason": "self-signed certificate"},
        ["wss://self.signed", "certificate was refused", "self-signed certificate", "cafile="],
    ),
    (
        SerializationError("text holds a lone surrogate", "send it as bytes"),
        {"what": "text holds a lone surrogate", "remedy": "send it as bytes"},
        ["text holds a lone surrogate; send it as bytes"],
    ),
    (
        MessageTypeError("int is no message", "send str"),
        {"what": "int is no message", "remedy": "send str"},
        ["int is no message; send str"],
    ),
    (
        PoolExhausted(1.5, 4, 6, 10, 3),
        {"waited": 1.5, "in_use": 4, "opening": 6, "size": 10, "waiting": 3},
        ["1.500 s", "4 in use", "6 being opened", "10 to all", "3 others", "max_connections"],
    ),
    (
        PoolExhausted(10.0, 0, 2, 2, 0),
        {"in_use": 0, "opening": 2},
        ["2 being opened", "the server does not answer: look at it", "acquire_timeout"],
    ),
    (
        PoolExhausted(1.0, 0, 1, 1, 0, retry_in=3.21, timeout=1.0),
        {"opening": 1, "retry_in": 3.21, "timeout": 1.0},
        ["asked to be left alone", "tried again in 3.2 s", "acquire_timeout"],
    ),
    (
        PoolExhausted(1.0, 0, 0, 1, 0, closing=1),
        {"closing": 1, "retry_in": 0.0},
        ["1 being closed", "does not answer what closes them", "max_connections"],
    ),
    (
        PoolExhausted(0.0, 0, 0, 0, 0, timeout=0),
        {"timeout": 0},
        ["timeout=0 opens none", "warm_up(url)"],
    ),
    (
        PoolExhausted(1.0, 0, 0, 5, 0, timeout=1.0),
        {"size": 5},
        ["5 to all URLs", "raise max_connections or max_total"],
    ),
    (
        ConnectionDenied("ws://a", "wrong password"),
        {"url": "ws://a", "reason": "wrong password"},
        ["cannot connect to ws://a: wrong password"],
    ),
    (EnvelopeRefused(), {}, ["does not acknowledge", "both ends", "reliable=True"]),
    (
        DeliveryUnknown(["one", b"two"]),
        {"unacknowledged": ["one", b"two"]},
        ["peer closed", "last 2 messages"],
    ),
    (
        SessionLost("the server has forgotten it", ["one"], Close(1011, "bang"), None),
        {"why": "the server has forgotten it", "unacknowledged": ["one"], "rcvd": Close(1011, "bang"), "sent": None},
        ["session lost: the server has forgotten it", "1 messages", ".unacknowledged"],
    ),
    (PoolClosed(), {}, ["closed", "make another"]),
    (LeaseReturned(), {}, ["was returned", "get_connection"]),
    (
        BatcherFull(10, 200),
        {"messages": 10, "size": 200},
        ["10 messages of 200 bytes", "max_pending_messages", 'overflow="block"'],
    ),
    (BatcherClosed(), {}, ["closed", "make another"]),
    (BatcherReentered("close"), {"call": "close"}, ["deliver called close", "in a task of its own"]),
    (MessageDropped("expired"), {"reason": "expired"}, ["dropped", "expired", "ttl"]),
    (MessageDropped("overflow"), {"reason": "overflow"}, ["too many waited", "block"]),
    (MessageDropped("closed"), {"reason": "closed"}, ["closed before it was delivered", "timeout of close"]),
    (DeliveryFailed(5), {"reason": "failed", "attempts": 5}, ["deliver failed 5 times", "max_attempts"]),
    (LoadCycle("block 17"), {"key": "block 17"}, ["the loader of 'block 17'", "wait for itself", "call the source"]),
    (
        RpcError(-32000, "header not found", {"block": "0x1"}),
        {"code": -32000, "message": "header not found", "data": {"block": "0x1"}},
        ["error -32000: header not found", ".data"],
    ),
    (RpcError(0, "busy"), {"code": 0, "data": None}, ["error 0: busy"]),
    (CallTimeout("eth_call", 10.0), {"method": "eth_call", "timeout": 10.0}, ["eth_call", "within 10 s", "timeout"]),
    (
        CallLost("eth_call", True, None, Close(1009, "too big")),
        {"method": "eth_call", "written": True, "rcvd": None, "sent": Close(1009, "too big")},
        ["eth_call", "may have done it", "idempotent=True"],
    ),
    (CallLost("eth_call", False), {"written": False}, ["eth_call was not sent", "call again"]),
    (TooManyCalls(7, 7), {"pending": 7, "limit": 7}, ["7 calls wait", "max_calls=7"]),
    (
        ConsumerTooSlow("eth_subscribe", 3, 99),
        {"method": "eth_subscribe", "events": 3, "size": 99},
        ["3 events of 99 bytes", "max_events", "max_event_bytes"],
    ),
    (RpcClosed(), {}, ["closed", "make another"]),
    (
        GraphQLError([{"message": "no such field"}, {"message": "nor this"}]),
        {"errors": [{"message": "no such field"}, {"message": "nor this"}]},
        ["no such field, and 1 more", ".errors"],
    ),
    (GraphQLError([]), {"errors": []}, ["does not say why"]),
    (
        GraphQLClosed(4403, "Forbidden"),
        {"code": 4403, "reason": "Forbidden", "is_final": True},
        ["4403 (Forbidden)", "connection_init", "change it"],
    ),
    (GraphQLClosed(4499, ""), {"code": 4499, "is_final": False}, ["4499 (no reason)", "see what its reason says"]),
    (InvalidReply("a number out of range"), {"reason": "a number out of range"}, ["out of range", ".raw"]),
    (WrongLoop(), {}, ["this connection", "another event loop or thread", "run_coroutine_threadsafe", "fork"]),
    (BlockingCall("send"), {"call": "send"}, ["penstock.sync's send waits", "asyncio.to_thread"]),
    (InheritedByFork("send"), {"call": "send"}, ["send was called", "parent process", "make another"]),
    (LoopEnded("recv"), {"call": "recv"}, ["recv has ended", "closed, or the program exits", "make another"]),
    (
        WaitTimeout("send_many", 0.5, 3),
        {"call": "send_many", "timeout": 0.5, "accepted": 3},
        ["send_many took longer than 0.5 s", "after 3 messages were accepted", "raise timeout"],
    ),
    (WaitTimeout("recv", 1), {"accepted": 0}, ["recv took longer than 1 s, and was cancelled; raise timeout"]),
    (
        SendingFailed("ws://h", ["a", b"b"]),
        {"url": "ws://h", "messages": ["a", b"b"]},
        ["2 messages to ws://h were not sent", "see .messages"],
    ),
]
every_error = pytest.mark.parametrize(("error", "facts", "says"), EXAMPLES, ids=lambda value: type(value).__name__)


def _all() -> set[type[PerformanceError]]:
    return {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PerformanceError)}


def test_every_error_is_an_example_here() -> None:
    assert {type(error) for error, _, _ in EXAMPLES} == _all()


@every_error
def test_an_error_has_its_facts_as_attributes(
    error: PerformanceError, facts: dict[str, object], says: list[str]
) -> None:
    assert {name: getattr(error, name) for name in facts} == facts


@every_error
def test_an_error_says_what_is_wrong_and_what_to_do(
    error: PerformanceError, facts: dict[str, object], says: list[str]
) -> None:
    for words in says:
        assert words in str(error)


@every_error
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(
    error: PerformanceError, facts: dict[str, object], says: list[str], protocol: int
) -> None:
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is type(error)
    assert {name: getattr(copy, name) for name in facts} == facts
    assert str(copy) == str(error)


@every_error
def test_an_error_stands_in_the_tree_drawn_at_the_top(
    error: PerformanceError, facts: dict[str, object], says: list[str]
) -> None:
    assert isinstance(error, PerformanceError)
    assert type(error).__name__ in (errors.__doc__ or "")
    assert type(error).__doc__


@pytest.mark.parametrize(
    ("error", "parents"),
    [
        (ConnectionFailed, {OSError}),
        (CertificateRefused, {ConnectionFailed, ssl.SSLCertVerificationError, ssl.SSLError, OSError, ValueError}),
        (SerializationError, {ValueError}),
        (MessageTypeError, {TypeError}),
        (WrongLoop, {RuntimeError}),
        (BlockingCall, {WrongLoop, RuntimeError}),
        (InheritedByFork, {WrongLoop, RuntimeError}),
        (LoopEnded, {RuntimeError}),
        (WaitTimeout, {TimeoutError}),
        (LoadCycle, {RuntimeError}),
        (ConfigError, {ValueError}),
        (BatcherFull, {RuntimeError}),
        (BatcherClosed, {RuntimeError}),
        (BatcherReentered, {RuntimeError}),
        (DeliveryFailed, {MessageDropped}),
    ],
)
def test_an_error_is_caught_by_who_expects_the_standard_one(
    error: type[PerformanceError], parents: set[type[Exception]]
) -> None:
    assert parents <= set(error.__mro__)


def test_a_failed_connection_is_not_a_wrong_message() -> None:
    assert not issubclass(ConnectionFailed, ValueError)
    assert not issubclass(SerializationError, OSError)


def test_the_public_names_are_the_same_classes() -> None:
    assert penstock.PerformanceError is PerformanceError
    assert penstock.ConnectionFailed is ConnectionFailed
    assert penstock.CertificateRefused is CertificateRefused
