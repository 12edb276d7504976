"""Every test must leave the process without the background thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from support.pipes import Ledger, ledger
from support.threads import in_thread, wait_until


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    wait_until(lambda: not [one for one in threading.enumerate() if one not in before and "penstock" in one.name])


@pytest.fixture
def book() -> Iterator[Ledger]:
    with in_thread(ledger()) as (book, _):
        yield book
