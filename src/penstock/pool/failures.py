"""What a server means that refuses or ends a connection. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeAlias

from penstock.errors import CertificateRefused, ConnectionDenied
from penstock.transport.base import CloseCode, InvalidStatus, InvalidURI


@dataclass(frozen=True, slots=True)
class Denied:
    """Another attempt would be answered in the same way."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """The server asks to be left alone for so many seconds (RFC 9110 section 10.2.3)."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Transient:
    """Another attempt may succeed."""


Verdict: TypeAlias = Denied | RetryAfter | Transient

_WORTH_ANOTHER_TRY = frozenset((408, 425, 429))


def judge(exc: BaseException | None, wall_time: float) -> Verdict:
    """What a failed attempt says about the next; ``wall_time`` is seconds since 1970, for a date as ``Retry-After``."""
    while exc is not None:
        match exc:
            case InvalidStatus(response=response):
                return _judge_status(response.status_code, response.headers.get_all("Retry-After"), wall_time)
            case ConnectionDenied() | CertificateRefused() | InvalidURI():
                return Denied()
        exc = exc.__cause__
    return Transient()


def _judge_status(status: int, retry_after: list[str], wall_time: float) -> Verdict:
    if status in (429, 503) and retry_after:
        seconds = _seconds(retry_after[0], wall_time)
        return RetryAfter(seconds) if seconds > 0 else Transient()  # to ask for none does not end the backoff
    return Denied() if 400 <= status < 500 and status not in _WORTH_ANOTHER_TRY else Transient()


def _seconds(retry_after: str, wall_time: float) -> float:
    """From now on; 0 or less if the time has passed, or makes no sense."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - wall_time


def judge_close(code: int | None) -> bool | None:
    """Whether a close code asks to stay away for long (True) or a while (False); None if it does not."""
    if code == CloseCode.POLICY_VIOLATION:
        return True
    return False if code in (CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER) else None
