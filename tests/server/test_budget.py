"""What all servers of a process keep together of sessions whose clients are away."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import penstock
from penstock import SessionBudget, SessionConfig
from penstock.errors import SessionLost
from penstock.server.budget import PROCESS, Waiting
from support.sessions import meeting, until

pytestmark = pytest.mark.timeout(30)


class Ends:
    """Makes sessions that wait, and remembers which of them ended."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def waiting(self, name: str, size: int = 0, loop: asyncio.AbstractEventLoop | None = None) -> Waiting:
        return Waiting(loop or asyncio.get_running_loop(), size, lambda: self.names.append(name))


def sharing(budget: SessionBudget, **options: Any) -> dict[str, Any]:
    return {"sessions": SessionConfig(ttl=5, budget=budget, **options)}


def test_out_of_bounds_is_refused_with_its_name() -> None:
    for bad in ({"max_detached": -1}, {"max_detached_bytes": 1.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SessionBudget(**bad)  # type: ignore[arg-type]


def test_a_server_cannot_be_allowed_more_than_all_together() -> None:
    budget = SessionBudget(max_detached=1000, max_detached_bytes=2**30)
    SessionConfig(budget=budget)
    with pytest.raises(ValueError, match="max_detached=1001: must be at most 1000"):
        SessionConfig(budget=budget, max_detached=1001)
    with pytest.raises(ValueError, match="max_detached_bytes"):
        SessionConfig(budget=budget, max_detached_bytes=2**30 + 1)


def test_all_servers_share_one_budget_by_default() -> None:
    assert SessionConfig().budget is SessionConfig(ttl=5).budget is PROCESS


async def test_the_first_end_until_the_rest_is_within_the_bounds() -> None:
    ends, budget = Ends(), SessionBudget(max_detached=3, max_detached_bytes=100)
    for name, size in (("a", 10), ("b", 60), ("c", 30)):
        budget.keep(ends.waiting(name, size))
    assert ends.names == []
    budget.keep(ends.waiting("d"))
    assert ends.names == ["a"]
    last = ends.waiting("e", 90)
    budget.keep(last)
    assert ends.names == ["a", "b", "c"]
    assert (budget.detached, budget.detached_bytes) == (2, 90)
    budget.release(last)
    budget.release(last)
    assert (budget.detached, budget.detached_bytes) == (1, 0)


async def test_what_a_session_keeps_now_counts_and_not_what_it_kept() -> None:
    ends, budget = Ends(), SessionBudget(max_detached=3, max_detached_bytes=100)
    first, second = ends.waiting("a", 50), ends.waiting("b", 50)
    budget.keep(first)
    budget.keep(second)
    first.size = 10
    budget.keep(first)
    assert budget.detached_bytes == 60
    second.size = 91
    budget.keep(second)
    assert ends.names == ["a"]
    assert budget.detached_bytes == 91


async def test_one_that_is_too_much_by_itself_ends() -> None:
    ends, budget = Ends(), SessionBudget(max_detached_bytes=100)
    budget.keep(ends.waiting("a", 101))
    assert ends.names == ["a"]
    assert (budget.detached, budget.detached_bytes) == (0, 0)


def test_what_waited_in_an_event_loop_that_was_closed_does_not_count() -> None:
    ends, budget = Ends(), SessionBudget()

    async def leave() -> None:
        budget.keep(ends.waiting("gone", 90))

    async def go_on() -> None:
        budget.keep(ends.waiting("here", 90))

    asyncio.run(leave())
    asyncio.run(go_on())
    assert ends.names == []
    assert (budget.detached, budget.detached_bytes) == (1, 90)


async def test_one_of_another_thread_ends_in_its_own() -> None:
    budget = SessionBudget(max_detached=1)
    ended_in: list[Any] = []
    here, done = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        ended_in.append(threading.get_ident())
        done.set()

    budget.keep(Waiting(here, 0, end))

    async def elsewhere() -> None:
        budget.keep(Ends().waiting("other"))

    await asyncio.to_thread(asyncio.run, elsewhere())
    await asyncio.wait_for(done.wait(), 5)
    assert ended_in == [threading.get_ident()]


async def test_the_first_session_of_one_server_ends_for_one_of_another() -> None:
    budget = SessionBudget(max_detached=1000, max_detached_bytes=100_000)
    bounds = sharing(budget, max_detached_bytes=100_000)
    async with meeting(server=bounds) as first, meeting(server=bounds) as second:
        for both in (first, second):
            await both.far.send_many(["x" * 1000] * 60)
            await both.away()
        with pytest.raises(SessionLost, match="too many"):
            await first.far.recv()
        assert budget.detached == 1
        assert 60_000 < budget.detached_bytes < 70_000
        second.return_()
        await second.back()
        assert (budget.detached, budget.detached_bytes) == (0, 0)
        assert repr(budget) == "<SessionBudget 0 of 1000 sessions, 0 of 100000 bytes>"


async def test_what_a_session_keeps_is_counted_as_soon_as_its_connection_breaks() -> None:
    """Else a thousand could break between two looks."""
    async with meeting(server={"sessions": SessionConfig(ttl=5, max_detached_bytes=50_000)}) as both:
        await both.far.send_many(["x" * 1000] * 60)
        loop = asyncio.get_running_loop()
        both.relay.is_refusing = True
        began = loop.time()
        await both.cut()
        with pytest.raises(SessionLost, match="too many"):
            await both.far.recv()
        assert loop.time() - began < 0.5


async def test_a_session_whose_client_is_back_does_not_end_for_others() -> None:
    """Another thread has asked for its end, and its event loop gets to that too late."""
    budget = SessionBudget(max_detached=1000)
    async with meeting(server=sharing(budget)) as both:
        await both.away()
        [waiting] = budget._waiting
        both.return_()
        await both.back()
        waiting.end()
        await both.far.send("still here")
        assert await both.client.recv() == "still here"


async def test_a_server_that_closes_gives_back_what_it_has_of_the_budget() -> None:
    budget = SessionBudget(max_detached=1000)
    async with meeting(server=sharing(budget)) as both:
        await both.away()
        assert budget.detached == 1
        both.over.set()
        both.server.close()
        await until(lambda: budget.detached == 0)
        assert isinstance(both.server, penstock.Server)
