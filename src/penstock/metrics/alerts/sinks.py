"""Where alerts go."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from typing import Any, Protocol
from urllib.parse import urlsplit

from penstock.metrics.alerts import payloads
from penstock.metrics.alerts.engine import Alert
from penstock.metrics.alerts.http import post_json
from penstock.metrics.alerts.requests import check_headers, check_url

logger = logging.getLogger("penstock.alerts")

HTTP_TIMEOUT = 5.0
"""Seconds for a request."""
RESEND_INTERVAL = 60.0
"""Seconds after which Alertmanager is told of an alert again that still fires."""


class Sink(Protocol):
    """Somewhere that alerts are sent to."""

    @property
    def resend(self) -> float | None:
        """Seconds after which alerts that fire are sent again; None: they are sent once."""

    async def send(self, alerts: Sequence[Alert]) -> None:
        """Send alerts that have begun to fire, were resolved, or still fire.

        Raises:
            ConnectionDenied: sending them again would be of no use.
            Exception: it may be.
        """


class LogSink:
    """Writes alerts to the log ``penstock.alerts``: at WARNING, or ERROR for critical ones, at INFO when resolved."""

    resend: float | None = None

    async def send(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            labels = ", ".join(f"{name}={text}" for name, text in alert.all_labels().items() if name != "alertname")
            if alert.state == "resolved":
                logger.info("%s resolved (%s)", alert.name, labels)
                continue
            level = {"critical": logging.ERROR, "info": logging.INFO}.get(alert.severity, logging.WARNING)
            logger.log(level, "%s (%s): %s; value %.6g", alert.name, labels, alert.summary, alert.value)


class CallbackSink:
    """Calls a function, or a coroutine function, with each alert that has begun to fire or was resolved.

    It is called in the event loop. If it raises it is called again later, with that alert and those of the same moment.
    """

    resend: float | None = None

    def __init__(self, callback: Callable[[Alert], Awaitable[Any] | object]) -> None:
        self._callback = callback

    async def send(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            waiting = self._callback(alert)
            if isawaitable(waiting):
                await waiting


class WebhookSink:
    """Posts alerts to a URL in the form of Alertmanager's webhooks, version 4.

    Args:
        labels: of this program, added to those of each alert.
        headers: such as ``Authorization``.
        timeout: seconds for a request.

    Raises:
        ValueError: the URL, or a header, cannot be sent.
    """

    resend: float | None = None

    def __init__(
        self,
        url: str,
        *,
        labels: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = HTTP_TIMEOUT,
    ) -> None:
        self._url, self._labels, self._timeout = check_url(url), labels or {}, timeout
        self._headers = check_headers(headers or {})

    async def send(self, alerts: Sequence[Alert]) -> None:
        body = payloads.webhook(alerts, _shift(), self._labels)
        await post_json(self._url, body, headers=self._headers, timeout=self._timeout)


class AlertmanagerSink:
    """Posts alerts to Alertmanager, each minute again while they fire.

    Args:
        url: of Alertmanager, such as ``http://localhost:9093``.
        labels, headers, timeout: as for `WebhookSink`.
        resend: seconds; Alertmanager forgets an alert after four minutes.

    Raises:
        ValueError: as there, or ``resend`` is out of bounds.
    """

    def __init__(
        self,
        url: str,
        *,
        labels: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = HTTP_TIMEOUT,
        resend: float = RESEND_INTERVAL,
    ) -> None:
        if not 0 < resend < payloads.RESOLVE_TIMEOUT:
            raise ValueError(f"resend={resend!r}: must be greater than 0 and less than {payloads.RESOLVE_TIMEOUT}")
        parts = urlsplit(check_url(url))
        self._url = parts._replace(path=f"{parts.path.rstrip('/')}/api/v2/alerts").geturl()
        self._labels, self._headers, self._timeout = labels or {}, check_headers(headers or {}), timeout
        self.resend: float | None = resend

    async def send(self, alerts: Sequence[Alert]) -> None:
        body = payloads.alertmanager(alerts, time.monotonic(), _shift(), self._labels)
        await post_json(self._url, body, headers=self._headers, timeout=self._timeout)


def _shift() -> float:
    return time.time() - time.monotonic()
