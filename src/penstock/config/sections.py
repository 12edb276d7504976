"""What can be set, in sections. Pure.

Numbers are whole counts, sizes in bytes (names that end in ``_bytes``), or seconds, unless the field says otherwise.
Each class raises ValueError if a field is out of bounds; the message names the field, its value and the bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from penstock.cache.policy import EvictionPolicy
from penstock.config.checks import (
    check_amount,
    check_choice,
    check_count,
    check_member,
    check_positive,
    check_switch,
    check_url,
)
from penstock.metrics.alerts.requests import check_url as check_post_url

Mode = Literal["auto", "optimized", "bypassed"]

_WEB = ("http", "https")
_MODES = ("auto", "optimized", "bypassed")


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingConfig:
    """How messages gather that are sent through the middleware to a URL, before they are on a connection."""

    batch_size: int = 100
    """Messages that make a batch full."""
    batch_timeout: float = 0.0
    """Seconds that the oldest message waits for company; 0 until the end of the event loop's iteration."""
    ordering: bool = False
    """Whether urgent messages go before those that came earlier."""
    deduplicate: Literal["content"] | float | None = None
    """Seconds in which a message is dropped that repeats the type and content of an earlier one; ``"content"`` for
    repeats in one batch; None to drop none."""
    overflow: Literal["block", "raise", "drop_oldest", "drop_newest"] = "block"
    """What becomes of a message for which there is no room: it waits, is refused, or the oldest or the newest goes."""
    max_pending_messages: int = 10_000
    """Messages that may wait for one URL; `LimitsConfig.max_pending_messages` bounds those for all together."""
    max_pending_bytes: int = 16 * 1024 * 1024
    """Bytes, likewise; `LimitsConfig.max_pending_bytes` bounds those for all together."""
    idle_time: float = 1.0
    """Seconds without a message after which a URL's connection goes back to the pool."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_pending_messages", "max_pending_bytes"):
            check_count(self, name)
        check_amount(self, "batch_timeout")
        check_amount(self, "idle_time")
        check_switch(self, "ordering")
        check_choice(self, "overflow", choices=("block", "raise", "drop_oldest", "drop_newest"))
        if isinstance(self.deduplicate, int | float) and not isinstance(self.deduplicate, bool):
            check_positive(self, "deduplicate")
        elif self.deduplicate not in ("content", None):
            raise ValueError(
                f"deduplicate={self.deduplicate!r}: must be 'content', a number of seconds above 0, or None"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeConfig:
    """How connections speak with servers: acknowledged and resumed, compressed, or plainly."""

    reliable: bool | None = None
    """Whether messages are acknowledged, and survive a break: always, never, or (None) where the server can."""
    resume: bool = True
    """Whether a connection outlives a break; if not, a break raises at once."""
    on_session_lost: Literal["raise", "resend"] = "raise"
    """When a server has forgotten a connection after a break: raise, or send again what may have arrived."""
    compression: Literal["deflate"] | None = None
    """``"deflate"`` offers permessage-deflate, and compresses batches where the server speaks the envelope."""
    send_timeout: float | None = None
    """Seconds that sending one message may wait; None for no limit."""

    def __post_init__(self) -> None:
        check_choice(self, "reliable", choices=(True, False, None))
        check_switch(self, "resume")
        check_choice(self, "on_session_lost", choices=("raise", "resend"))
        check_choice(self, "compression", choices=("deflate", None))
        check_positive(self, "send_timeout", optional=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """Answers that are kept."""

    enabled: bool = True
    """Whether answers are kept at all; only those are for which a call or a policy says so."""
    max_size: int = 1000
    """Entries; 0 keeps none, and still has a question asked only once at a time."""
    ttl: float = 300.0
    """Seconds for which an entry is fresh, where nothing else is said."""
    eviction_policy: EvictionPolicy = EvictionPolicy.LRU
    """Which entry goes for want of room: the one not used for longest (``"lru"``), least often (``"lfu"``), the one
    that expires soonest (``"ttl"``), or one that was never asked for (``"s3-fifo"``)."""
    max_bytes: int | None = None
    """Bytes that all values may weigh; None for no bound. `LimitsConfig.memory_bytes` counts them as well."""
    stale_ttl: float = 0.0
    """Seconds after its ttl for which an entry still answers while another is loaded."""
    jitter: float = field(default=0.0, metadata={"unit": "share"})
    """Share of each ttl, from 0 to 1, up to which it is cut by chance."""
    shared: str | None = field(default=None, repr=False)
    """URL of a Valkey or Redis server where processes share entries; None for a cache in this process alone."""
    prefix: str = "penstock:"
    """Begins all names on that server."""

    def __post_init__(self) -> None:
        check_switch(self, "enabled")
        check_count(self, "max_size", least=0)
        check_count(self, "max_bytes", least=0, optional=True)
        check_amount(self, "ttl")
        check_amount(self, "stale_ttl")
        check_amount(self, "jitter", most=1, unit="")
        check_member(self, "eviction_policy", EvictionPolicy)
        check_url(self, "shared", schemes=("redis", "rediss", "unix"))
        if not isinstance(self.prefix, str) or not self.prefix:
            raise ValueError(f"prefix={self.prefix!r}: must have at least one character")


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcConfig:
    """Calls that are answered."""

    connections: int = 4
    """Connections that a client takes from the pool, at most."""
    max_calls: int = 1024
    """Calls of one client that wait for their answers at a time; the next is refused."""
    timeout: float | None = 10.0
    """Seconds that a call may take, where it does not say; None for no limit."""

    def __post_init__(self) -> None:
        check_count(self, "connections")
        check_count(self, "max_calls")
        check_positive(self, "timeout", optional=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """What is measured."""

    enabled: bool = True
    """Whether anything is; alerts need it."""
    interval: float = 1.0
    """Seconds between two looks."""
    history: float = 900.0
    """Seconds for which what was seen is kept."""
    control: bool = False
    """Whether ``penstock top`` of the same user can look, through a local socket."""

    def __post_init__(self) -> None:
        check_switch(self, "enabled", "control")
        check_positive(self, "interval", most=86_400.0)
        check_positive(self, "history", most=30 * 86_400.0)
        if self.history < self.interval:
            raise ValueError(f"history={self.history!r}: must be at least interval={self.interval!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsConfig:
    """Who is told when something is wrong; what is wrong is told by rules, not here."""

    enabled: bool = True
    """Whether rules are looked at."""
    log: bool = True
    """Whether alerts are logged, by the logger ``penstock.alerts``."""
    webhook: str | None = field(default=None, repr=False)
    """URL to which alerts are posted in Alertmanager's webhook format."""
    alertmanager: str | None = field(default=None, repr=False)
    """URL of an Alertmanager."""

    def __post_init__(self) -> None:
        check_switch(self, "enabled", "log")
        for name in ("webhook", "alertmanager"):
            check_url(self, name, schemes=_WEB)
            if (url := getattr(self, name)) is not None:
                try:
                    check_post_url(url)
                except ValueError as exc:
                    raise ValueError(f"{name}={exc}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackConfig:
    """Which stages work, and when one that does not help is stepped around.

    A mode is ``"auto"`` (on, bypassed while it fails or slows things down), ``"optimized"`` (on, whatever happens) or
    ``"bypassed"`` (off).
    """

    pool: Mode = "auto"
    """Mode of the pool; bypassed, each use opens a connection of its own."""
    batch: Mode = "auto"
    """Mode of gathering; bypassed, each message is written on its own."""
    envelope: Mode = "auto"
    """Mode of the envelope, for connections that are opened from then on; bypassed, they are plain WebSockets."""
    cache: Mode = "auto"
    """Mode of the cache; bypassed, each call asks the server."""
    failures: int = 3
    """Failures of a stage itself, one after the other, until it is bypassed."""
    probe_after: float = 60.0
    """Seconds until a bypassed stage is tried again."""
    stage_timeout: float = 5.0
    """Seconds for which a stage may hang beyond its own limits; more is a failure."""
    sample_every: int = 1000
    """Operations of which one takes the plain way, to be compared; 0 to compare never."""

    def __post_init__(self) -> None:
        check_choice(self, "pool", "batch", "envelope", "cache", choices=_MODES)
        check_count(self, "failures")
        check_positive(self, "probe_after")
        check_positive(self, "stage_timeout")
        check_count(self, "sample_every", least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """Bounds of everything together.

    What one URL or one part may have is bounded in its own section; the lesser bound counts.
    """

    max_connections: int | None = None
    """Connections to all URLs, those among them that were opened past a bypassed pool; None for the pool's
    ``max_total``, which counts its own."""
    max_pending_messages: int | None = None
    """Messages that wait to be sent, to all URLs; None for no bound."""
    max_pending_bytes: int | None = None
    """Bytes, likewise."""
    memory_bytes: int | None = None
    """Bytes of all that is kept: messages that wait, those of broken connections, and the cache; None for no bound."""
    on_limit: Literal["wait", "raise"] = "wait"
    """What becomes of a caller who would exceed a bound of this section: he waits, or gets an error."""

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_pending_messages", "max_pending_bytes", "memory_bytes"):
            check_count(self, name, optional=True)
        check_choice(self, "on_limit", choices=("wait", "raise"))
