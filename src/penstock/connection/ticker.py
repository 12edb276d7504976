"""The end of a loop iteration, told to many for the price of one callback."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from typing import Protocol
from weakref import WeakKeyDictionary


class Ticking(Protocol):
    """Who wants to be told."""

    def tick(self) -> None: ...
    def broke(self, exc: Exception) -> None:
        """The tick raised ``exc``."""


class Ticker:
    """Those of one event loop who want to be told.

    A thousand connections that are sent a message each would otherwise make a thousand callbacks, and the garbage
    collector would look at all of them.
    """

    def __init__(self) -> None:
        self._due: list[Ticking] = []

    def add(self, who: Ticking, loop: AbstractEventLoop) -> None:
        """Call ``who.tick`` once, when this iteration of ``loop`` is over."""
        if not self._due:
            loop.call_soon(self._tick)
        self._due.append(who)

    def _tick(self) -> None:
        due, self._due = self._due, []
        for who in due:
            try:
                who.tick()
            except Exception as exc:  # noqa: BLE001 - the top of a callback: the others must be told
                who.broke(exc)


_tickers: WeakKeyDictionary[AbstractEventLoop, Ticker] = WeakKeyDictionary()


def ticker_of(loop: AbstractEventLoop) -> Ticker:
    """The one ticker of an event loop."""
    ticker = _tickers.get(loop)
    if ticker is None:
        ticker = _tickers[loop] = Ticker()
    return ticker
