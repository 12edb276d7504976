"""No secret of a URL is shown, wherever that is."""

from __future__ import annotations

import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import PerformanceManager
from penstock.errors import CertificateRefused, ConnectionDenied, ConnectionFailed, SendingFailed
from penstock.errors.urls import shown_text, shown_url
from penstock.manager.switch import Stage
from penstock.middleware.carrier import Carrier
from penstock.pool.target import check_url
from penstock.transport.base import parse_uri, without_credentials

SECRET = "wss://me:hunter2@node.example:443/v3/hunter2hunter2hunter2?key=hunter2"
SHOWN = "wss://node.example:443/v3/hunt…?key=***"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://localhost:8765/events", "ws://localhost:8765/events"),
        ("ws://me:secret@localhost/events", "ws://localhost/events"),
        ("ws://me@localhost/", "ws://localhost/"),
        ("wss://node.example/ws?key=secret&net=2", "wss://node.example/ws?key=***&net=***"),
        ("wss://node.example/ws?secret", "wss://node.example/ws?***"),
        ("wss://node.example/v3/0123456789abcdef0123", "wss://node.example/v3/0123…"),
        ("wss://node.example/a-rather-long-name-of-events", "wss://node.example/a-rather-long-name-of-events"),
        ("ws://localhost/#token=secret", "ws://localhost/"),
        ("ws://me:p@secret@localhost/a@b", "ws://localhost/a@b"),
        ("ws://me:secret/secret@localhost/", "***"),
        ("ws://me:secret?secret@localhost/", "***"),
        ("ws://me:secret#secret@localhost/", "***"),
        ("ws://[fd00::1]:8080/x", "ws://[fd00::1]:8080/x"),
        ("ws://me:secret/secret@[host", "***"),
        ("ws://[host", "ws://[host"),
        ("ws://host:port/path", "ws://host:port/path"),
        ("ws://host:70000/v3/0123456789abcdef0123", "ws://host:70000/v3/0123…"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=***"),
        ("localhost:6379", "localhost:6379"),
        ("me:secret@localhost:6379", "localhost:6379"),
        ("/run/redis.sock", "/run/redis.sock"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert shown_url(shown) == shown


@given(st.text(), st.text(max_size=3))
def test_no_password_is_shown_whatever_is_in_it(password: str, path: str) -> None:
    assert "hunter2" not in shown_url(f"ws://me:hunter2{password}hunter2@host/{path}")


def test_text_is_shown_without_the_secrets_of_the_urls_in_it() -> None:
    assert shown_text(f'no way to "{SECRET}" or <{SECRET}>, {SECRET}') == f'no way to "{SHOWN}" or <{SHOWN}>, {SHOWN}'
    assert shown_text("a: b//c, 1://2") == "a: b//c, 1://2"


@pytest.mark.parametrize("kind", [ConnectionFailed, CertificateRefused, ConnectionDenied])
def test_an_error_shows_no_secret_and_keeps_the_url(kind: type[ConnectionFailed]) -> None:
    error = kind(SECRET, f"{SECRET} isn't a valid proxy")
    for text in (str(error), repr(error)):
        assert "hunter2" not in text
        assert SHOWN in text
    assert error.url == SECRET
    assert pickle.loads(pickle.dumps(error)).url == SECRET


def test_messages_that_were_not_sent_are_told_without_secrets() -> None:
    error = SendingFailed(SECRET, ["hunter2", "hunter2"])
    assert "hunter2" not in str(error) + repr(error)
    assert "2 messages" in repr(error)
    assert pickle.loads(pickle.dumps(error)).url == SECRET


def test_a_change_of_a_mode_is_logged_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock.manager")
    manager = PerformanceManager()
    manager.bypass(Stage.CACHE, SECRET)
    manager.failed(manager.switch(Stage.BATCH, SECRET), ConnectionFailed(SECRET, "no"))
    assert SHOWN in caplog.messages[0]
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "url", ["ws://me:hunter2/@host/", "http://me:hunter2@host", "me:hunter2@host", "ws://:hunter2@"]
)
def test_a_url_that_is_refused_is_told_without_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="url=") as caught:
        check_url(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_stages_log_a_url_without_secrets() -> None:
    async def borrow() -> None:
        """Nobody asks."""

    carrier = Carrier(SECRET, borrow, on_message=None, on_undelivered=None, on_gone=print)  # type: ignore[arg-type]
    assert carrier.shown == SHOWN
    assert without_credentials(parse_uri(SECRET)) == SHOWN
