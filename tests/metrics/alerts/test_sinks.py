"""Where alerts go, and what becomes of them when that is not there."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock import AlertRule
from penstock.errors import ConnectionDenied, ConnectionFailed
from penstock.metrics import catalogue as m
from penstock.metrics.alerts import delivery as delivery_module
from penstock.metrics.alerts.delivery import ATTEMPTS, QUEUE, Delivery
from penstock.metrics.alerts.engine import Alert
from penstock.metrics.alerts.expressions import Gauge, select
from penstock.metrics.alerts.payloads import alertmanager, fingerprint, webhook
from penstock.metrics.alerts.sinks import AlertmanagerSink, CallbackSink, LogSink, Sink, WebhookSink
from support.certificates import authority, server_tls


def alert(name: str = "Odd", state: str = "firing", **options: Any) -> Alert:
    rule = AlertRule(
        name=name, expression=Gauge(select(m.POOL_WAITERS)), fire=1, by=("pool",), summary="odd", **options
    )
    resolved_at = 30.0 if state == "resolved" else None
    return Alert(rule, ("main",), state, 2.5, 10.0, 20.0, resolved_at)  # type: ignore[arg-type]


class Receiver(ThreadingHTTPServer):
    """An HTTP server that keeps what it gets, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.hold.wait(10)
        self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.hold.set()
        server.shutdown()
        thread.join()


def test_a_webhook_gets_what_alertmanager_sends() -> None:
    body = webhook([alert(), alert("Other", "resolved", severity="critical")], 1000.0, {"service": "shop"})
    assert body["version"] == "4"
    assert body["status"] == "firing"
    assert body["commonLabels"] == {"service": "shop", "pool": "main"}
    assert body["commonAnnotations"] == {"summary": "odd", "value": "2.5"}
    one, other = body["alerts"]
    assert one["labels"] == {"alertname": "Odd", "severity": "warning", "pool": "main", "service": "shop"}
    assert (one["status"], one["startsAt"], one["endsAt"]) == (
        "firing",
        "1970-01-01T00:17:00.000Z",
        "0001-01-01T00:00:00Z",
    )
    assert (other["status"], other["endsAt"]) == ("resolved", "1970-01-01T00:17:10.000Z")
    assert one["fingerprint"] != other["fingerprint"]
    assert webhook([alert(state="resolved")], 0, {})["status"] == "resolved"


def test_alertmanager_is_told_that_an_alert_ends_in_four_minutes_unless_it_has_ended() -> None:
    one, other = alertmanager([alert(action="call us"), alert(state="resolved")], 60.0, 1000.0, {})
    assert (one["startsAt"], one["endsAt"]) == ("1970-01-01T00:17:00.000Z", "1970-01-01T00:21:40.000Z")
    assert one["annotations"] == {"summary": "odd", "value": "2.5", "action": "call us"}
    assert other["endsAt"] == "1970-01-01T00:17:10.000Z"


def test_fingerprints_tell_names_from_values() -> None:
    assert len({fingerprint(labels) for labels in ({}, {"a": "bc"}, {"ab": "c"}, {"a": "b", "c": ""})}) == 4
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})


async def test_http_sinks_post_json(receiver: Receiver) -> None:
    await WebhookSink(f"{receiver.url}/hook?x=1", headers={"Authorization": "Bearer t"}).send([alert()])
    await AlertmanagerSink(receiver.url, labels={"service": "shop"}).send([alert()])
    (hook, headers, body), (path, _, alerts) = receiver.got
    assert (hook, path) == ("/hook?x=1", "/api/v2/alerts")
    assert headers["Authorization"] == "Bearer t"
    assert headers["Content-Type"] == "application/json"
    assert body["alerts"][0]["labels"]["alertname"] == "Odd"
    assert alerts[0]["labels"]["service"] == "shop"


@pytest.mark.parametrize(
    ("status", "error"), [(500, ConnectionFailed), (429, ConnectionFailed), (400, ConnectionDenied)]
)
async def test_an_answer_that_is_no_success_is_an_error(
    receiver: Receiver, status: int, error: type[Exception]
) -> None:
    receiver.answers.append(status)
    with pytest.raises(error, match=str(status)) as caught:
        await WebhookSink(f"{receiver.url}/secret?token=abc").send([alert()])
    assert type(caught.value) is error
    assert "abc" not in str(caught.value)


async def test_a_server_that_is_not_there_or_says_nothing_is_an_error(receiver: Receiver) -> None:
    receiver.hold.clear()
    with pytest.raises(ConnectionFailed, match="timed out"):
        await WebhookSink(receiver.url, timeout=0.05).send([alert()])
    with pytest.raises(ConnectionFailed, match=r"refused|Errno"):
        await WebhookSink("http://127.0.0.1:1").send([alert()])


@pytest.fixture
def bad_server() -> Iterator[Callable[[list[bytes]], str]]:
    """Answers what it is told, piece by piece, until nobody listens; its URL."""
    servers: list[tuple[socket.socket, threading.Thread]] = []

    def answer(listener: socket.socket, pieces: list[bytes]) -> None:
        with suppress(OSError), listener.accept()[0] as peer:
            peer.recv(65_536)
            for piece in pieces:
                peer.sendall(piece)
                over.wait(0.01)
            over.wait(10)

    def start(pieces: list[bytes]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=answer, args=(listener, pieces))
        thread.start()
        servers.append((listener, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/hook"

    over = threading.Event()
    yield start
    over.set()
    for listener, thread in servers:
        thread.join(10)
        listener.close()


async def test_a_server_that_says_little_at_a_time_has_no_more_time(bad_server: Callable[[list[bytes]], str]) -> None:
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"timed out after 0\.1 s"):
        await WebhookSink(bad_server([b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 1000]), timeout=0.1).send([alert()])
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n\r\n", b"\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * 200_000])
async def test_what_is_no_answer_is_an_error(bad_server: Callable[[list[bytes]], str], said: bytes) -> None:
    with pytest.raises(ConnectionFailed):
        await WebhookSink(bad_server([said])).send([alert()])


async def test_what_comes_before_the_answer_is_passed_over(bad_server: Callable[[list[bytes]], str]) -> None:
    await WebhookSink(bad_server([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"])).send(
        [alert()]
    )


def test_a_server_that_never_answers_does_not_hold_up_the_end_of_a_program(
    bad_server: Callable[[list[bytes]], str],
) -> None:
    async def main() -> None:
        delivery, failed = deliver(WebhookSink(bad_server([]), timeout=60))
        offer(delivery, alert())
        await delivery.close(0.05)
        assert failed == ["queue"]

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began < 5


async def test_alerts_are_posted_over_tls(receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    receiver.socket = server_tls("localhost").wrap_socket(receiver.socket, server_side=True)
    url = f"https://localhost:{receiver.server_port}/hook"
    with pytest.raises(ConnectionFailed, match="certificate"):
        await WebhookSink(url).send([alert()])
    authority().cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    await WebhookSink(url).send([alert()])
    assert [path for path, _, _ in receiver.got] == ["/hook"]


async def test_a_path_is_added_before_the_query(receiver: Receiver) -> None:
    await AlertmanagerSink(f"{receiver.url}/am/?token=x").send([alert()])
    assert receiver.got[0][0] == "/am/api/v2/alerts?token=x"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://host/hook?key=secret key", "spaces"),
        ("http://host/secretä?secret", "ASCII"),
        ("http://host/?secret\n", "ASCII"),
        ("http://host:port/", "must begin with"),
        ("http://me:secret/secret@host/", "must begin with"),
        ("http://[host", "must begin with"),
    ],
)
def test_a_url_that_would_fail_when_it_is_used_is_refused_at_once(url: str, says: str) -> None:
    for sink in (WebhookSink, AlertmanagerSink):
        with pytest.raises(ValueError, match=says) as caught:
            sink(url)
        assert "secret" not in str(caught.value).replace("/secretä", "")
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer secret\n"}, {"X\r\nY": "secret"}, {"X": "secretä"}])
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(headers: dict[str, str]) -> None:
    for sink in (WebhookSink, AlertmanagerSink):
        with pytest.raises(ValueError, match="headers") as caught:
            sink("http://localhost", headers=headers)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 500])
async def test_no_secret_of_a_sink_is_logged(receiver: Receiver, caplog: pytest.LogCaptureFixture, status: int) -> None:
    receiver.answers += [status] * ATTEMPTS
    sink = WebhookSink(f"{receiver.url}/hook?token=secret", headers={"Authorization": "secret"})
    assert "secret" not in repr(sink)
    delivery, _ = deliver(sink)
    offer(delivery, alert())
    await delivery.close(5)
    assert str(status) in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("url", ["localhost:9093", "ftp://host", "http://", "http://me:secret@host/"])
def test_a_url_that_cannot_be_posted_to_is_refused(url: str) -> None:
    for sink in (WebhookSink, AlertmanagerSink):
        with pytest.raises(ValueError, match=r"must begin with|in headers") as caught:
            sink(url)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("resend", [0, 240, float("nan")])
def test_a_time_in_which_alertmanager_would_forget_is_refused(resend: float) -> None:
    with pytest.raises(ValueError, match="resend="):
        AlertmanagerSink("http://localhost", resend=resend)


async def test_the_log_has_a_level_by_severity(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock.alerts")
    severities = ("info", "warning", "critical")
    await LogSink().send([*(alert(severity=one) for one in severities), alert(state="resolved")])
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "WARNING", "ERROR", "INFO"]
    assert caplog.messages[1] == "Odd (severity=warning, pool=main): odd; value 2.5"
    assert caplog.messages[3] == "Odd resolved (severity=warning, pool=main)"


async def test_a_callback_may_be_a_coroutine_function() -> None:
    told: list[str] = []

    async def later(one: Alert) -> None:
        await asyncio.sleep(0)
        told.append(f"later {one.name}")

    await CallbackSink(later).send([alert("A"), alert("B")])
    await CallbackSink(lambda one: told.append(f"now {one.name}")).send([alert("A")])
    assert told == ["later A", "later B", "now A"]


class Fake:
    """A sink that fails as often as it is told, or waits."""

    def __init__(self, *errors: Exception, resend: float | None = None) -> None:
        self.errors, self.resend = list(errors), resend
        self.got: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, alerts: Sequence[Alert]) -> None:
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.got.append([one.name for one in alerts])


def offer(delivery: Delivery, *changed: Alert, firing: Callable[[], Sequence[Alert]] = tuple, now: float = 0.0) -> None:
    delivery.offer(changed, firing, now)


@pytest.fixture(autouse=True)
def _retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "FIRST_DELAY", 0.0)
    monkeypatch.setattr(delivery_module, "LONGEST_DELAY", 0.0)


def deliver(sink: Sink) -> tuple[Delivery, list[str]]:
    failed: list[str] = []
    return Delivery(sink, lambda: 0.0, failed.append), failed


async def test_what_fails_is_tried_again_and_what_comes_meanwhile_waits_its_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Fake(OSError("one"), OSError("two"))
    delivery, failed = deliver(sink)
    offer(delivery, alert("A"))
    offer(delivery, alert("B"), alert("C"))
    await delivery.close(5)
    assert sink.got == [["A"], ["B", "C"]]
    assert failed == ["sink", "sink"]
    assert caplog.messages == ["Fake failed, and is tried again: OSError('one')"]


async def test_it_gives_up_in_the_end_and_goes_on_with_the_next() -> None:
    sink = Fake(*(OSError() for _ in range(ATTEMPTS)))
    delivery, failed = deliver(sink)
    offer(delivery, alert("A"))
    offer(delivery, alert("B"))
    await delivery.close(5)
    assert sink.got == [["B"]]
    assert failed == ["sink"] * ATTEMPTS + ["queue"]


async def test_what_was_cancelled_that_a_sink_waits_for_ends_no_delivery() -> None:
    told: list[str] = []

    async def wait_for_what_is_cancelled(one: Alert) -> None:
        told.append(one.name)
        if len(told) == 1:
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task

    delivery, failed = deliver(CallbackSink(wait_for_what_is_cancelled))
    offer(delivery, alert("A"))
    offer(delivery, alert("B"))
    await delivery.close(5)
    assert told == ["A", "A", "B"]
    assert failed == ["sink"]


async def test_what_is_refused_for_good_is_not_tried_again() -> None:
    sink = Fake(ConnectionDenied("http://x", "400"))
    delivery, failed = deliver(sink)
    offer(delivery, alert("A"))
    await delivery.close(5)
    assert (sink.got, failed) == ([], ["sink", "queue"])


async def test_no_more_than_a_bound_waits_and_the_oldest_goes() -> None:
    sink = Fake()
    sink.gate.clear()
    delivery, failed = deliver(sink)
    offer(delivery, alert("first"))
    await asyncio.sleep(0)
    for number in range(QUEUE + 2):
        offer(delivery, alert(f"A{number}"))
    assert failed == ["queue", "queue"]
    sink.gate.set()
    await delivery.close(5)
    assert [name for [name] in sink.got] == ["first", *(f"A{number}" for number in range(2, QUEUE + 2))]


async def test_closing_does_not_wait_for_ever_and_counts_what_is_lost() -> None:
    sink = Fake()
    sink.gate.clear()
    delivery, failed = deliver(sink)
    offer(delivery, alert("A"))
    offer(delivery, alert("B"))
    await delivery.close(0.01)
    assert (sink.got, failed) == ([], ["queue", "queue"])
    await delivery.close(0.01)


async def test_what_still_fires_is_sent_again_where_that_is_asked_for() -> None:
    sink, firing = Fake(resend=60), [alert("A")]
    delivery, _ = deliver(sink)
    for now in (100.0, 130.0, 159.0, 161.0):
        offer(delivery, *firing[: int(now == 100)], firing=lambda: firing, now=now)
        await delivery.close(5)
    assert sink.got == [["A"], ["A"]]
    firing.clear()
    offer(delivery, firing=lambda: firing, now=300.0)
    await delivery.close(5)
    assert len(sink.got) == 2
