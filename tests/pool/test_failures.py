from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import CertificateRefused, ConnectionDenied, ConnectionFailed
from penstock.pool.failures import Denied, RetryAfter, Transient, Verdict, judge, judge_close
from penstock.transport.base import Headers, InvalidStatus, InvalidURI, Response

NOW = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


def answer(status: int, *retry_after: str) -> InvalidStatus:
    return InvalidStatus(Response(status, "", Headers([("Retry-After", value) for value in retry_after])))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 426, 451, 499])
def test_a_request_that_the_server_will_never_take_is_denied(status: int) -> None:
    assert judge(answer(status), NOW) == Denied()
    assert judge(answer(status, "5"), NOW) == Denied()


@pytest.mark.parametrize("status", [200, 301, 408, 425, 429, 500, 502, 503, 504])
def test_other_answers_are_worth_another_try(status: int) -> None:
    assert judge(answer(status), NOW) == Transient()


@pytest.mark.parametrize("exc", [OSError("down"), TimeoutError(), ValueError("odd"), EOFError()])
def test_a_connection_that_breaks_is_worth_another_try(exc: Exception) -> None:
    assert judge(exc, NOW) == Transient()


@pytest.mark.parametrize(
    "exc",
    [
        CertificateRefused("wss://a", "expired"),
        ConnectionDenied("ws://a", "password"),
        InvalidURI("x", "no scheme"),
    ],
)
def test_what_no_other_attempt_would_change_is_denied(exc: Exception) -> None:
    assert judge(exc, NOW) == Denied()


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Wed, 21 Oct 2015 07:29:30 GMT", 90.0),
        ("Wednesday, 21-Oct-15 07:29:30 GMT", 90.0),
        ("Wed Oct 21 07:29:30 2015", 90.0),
        ("Wed, 21 Oct 2015 09:29:30 +0200", 90.0),
    ],
)
def test_the_server_says_how_long_to_stay_away(status: int, value: str, seconds: float) -> None:
    assert judge(answer(status, value), NOW) == RetryAfter(seconds)


@pytest.mark.parametrize("status", [500, 502, 408])
def test_other_answers_cannot_say_how_long(status: int) -> None:
    assert judge(answer(status, "120"), NOW) == Transient()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "-5",
        "1.5",
        "1e3",
        "\u0663",
        "\u00b2",
        "nan",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +99999999999999",
        "Mon, 01 Jan 2020 00:00:00 +9959",
    ],
)
def test_nonsense_is_an_ordinary_failure(value: str) -> None:
    headers = Headers()
    headers.set_insecure("Retry-After", value)
    assert judge(InvalidStatus(Response(503, "", headers)), NOW) == Transient()


@pytest.mark.parametrize("value", ["0", "000", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:00:00 GMT"])
def test_a_server_that_asks_for_no_rest_is_backed_off_from_all_the_same(value: str) -> None:
    assert judge(answer(503, value), NOW) == Transient()


def test_a_server_that_asks_twice_is_given_the_first() -> None:
    assert judge(answer(503, "30", "60"), NOW) == RetryAfter(30.0)
    assert judge(answer(503, "soon", "60"), NOW) == Transient()


@pytest.mark.parametrize("digits", [400, 5000])
def test_any_number_of_digits_is_a_long_time(digits: int) -> None:
    verdict = judge(answer(429, "9" * digits), NOW)
    assert isinstance(verdict, RetryAfter)
    assert verdict.seconds > 1e300


@given(st.text())
def test_no_header_raises(value: str) -> None:
    headers = Headers()
    headers.set_insecure("Retry-After", value)
    verdict = judge(InvalidStatus(Response(503, "", headers)), NOW)
    assert isinstance(verdict, Transient) or (isinstance(verdict, RetryAfter) and verdict.seconds > 0)


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize("zone", ["GMT", "-0000", "+0000", ""])
def test_a_date_means_the_same_wherever_the_client_is(zone: str) -> None:
    assert judge(answer(503, f"Wed, 21 Oct 2015 07:29:30 {zone}".strip()), NOW) == RetryAfter(90.0)


@pytest.mark.parametrize(
    ("cause", "verdict"),
    [
        (answer(403), Denied()),
        (answer(503, "9"), RetryAfter(9.0)),
        (OSError("down"), Transient()),
        (CertificateRefused("wss://a", "expired"), Denied()),
        (InvalidURI("x", "no scheme"), Denied()),
    ],
)
def test_the_cause_counts_however_deep_it_is(cause: Exception, verdict: Verdict) -> None:
    between, outer = RuntimeError("hook"), ConnectionFailed("ws://a", "no")
    between.__cause__, outer.__cause__ = cause, between
    assert judge(outer, NOW) == verdict


def test_what_merely_happened_before_does_not_count() -> None:
    exc = OSError("down")
    exc.__context__ = answer(403)
    assert judge(exc, NOW) == Transient()


@pytest.mark.parametrize(("code", "policy"), [(1008, True), (1012, False), (1013, False)])
def test_some_close_codes_ask_to_stay_away(code: int, policy: bool) -> None:
    assert judge_close(code) is policy


@pytest.mark.parametrize("code", [None, 1000, 1001, 1005, 1006, 1009, 1011, 4000])
def test_other_close_codes_do_not(code: int | None) -> None:
    assert judge_close(code) is None
