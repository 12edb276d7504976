"""What a shared tier tells about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStats:
    """A snapshot; counters count from the tier's making. Each question is one of `hits`, `misses`, `timeouts`,
    `failures` and `skipped`; all but the first had the loader called."""

    is_up: bool
    """There is a connection."""
    hits: int
    """Questions that the server had a fresh answer to."""
    misses: int
    """Questions that it had none to, damaged and stale ones among them."""
    timeouts: int
    """Questions that it did not answer in time."""
    failures: int
    """Questions that it answered with an error, or that the connection was lost with."""
    skipped: int
    """Questions that it was not asked, because it is down or slow."""
    damaged: int
    """Entries that were found, and that no version of this program has written so."""
    stored: int
    """Entries that were written."""
    outdated: int
    """Loaded values that were not written, because their key was changed meanwhile by another process."""
    unwritten: int
    """Entries that could not be written: the server was down, or refused."""
    invalidations: int
    """Changes by other processes that were taken over."""
    flushes: int
    """Times that all entries of this process were dropped, because changes by others may have been missed."""
    owed: int
    """Changes of this process that the server has not confirmed yet; they are sent until it has."""
