"""One suite for every transport, at both ends of a connection, on both event loops."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop

from support.links import Link

SOCKETS = ("picows", "websockets")
ENDS = ("client", "server")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def _every(transports: tuple[str, ...]) -> list[Any]:
    return [pytest.param((name, end), id=f"{name}-{end}") for name in transports for end in ENDS]


@pytest.fixture(params=_every((*SOCKETS, "memory")))
def link(request: pytest.FixtureRequest) -> Link:
    """Opens connections of one transport, at one end."""
    return Link(*request.param)


@pytest.fixture(params=_every(SOCKETS))
def socket_link(request: pytest.FixtureRequest) -> Link:
    """As `link`, where there is an opening handshake and a socket."""
    return Link(*request.param)


class _Complaints(logging.Handler):
    def __init__(self, complaints: list[Any]) -> None:
        super().__init__(logging.ERROR)
        self._complaints = complaints

    def emit(self, record: logging.LogRecord) -> None:
        self._complaints.append((record.getMessage(), record.exc_info))


@pytest.fixture(autouse=True)
async def _nobody_complains() -> AsyncIterator[None]:
    """No exception may end in the event loop, no future be forgotten, and nothing be logged as an error."""
    complaints: list[Any] = []
    handler = _Complaints(complaints)
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    logging.getLogger().addHandler(handler)
    yield
    gc.collect(1)
    await asyncio.sleep(0)
    logging.getLogger().removeHandler(handler)
    assert not complaints, complaints
