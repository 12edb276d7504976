"""A stage that raises, hangs or is slow is passed by, in order, with nothing lost; and it comes back by itself."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from penstock import ConnectionPoolConfig, MessageBatcher, Priority
from penstock.connection.outbox import Outbox
from penstock.connection.reliable import ReliableConnection
from penstock.manager.switch import Mode, Stage
from support.pipes import ledger, piped
from support.waiting import until

QUICK = {"probe_after": 0.1, "stage_timeout": 0.1}
KINDS = pytest.mark.parametrize("kind", ["raises", "hangs"])


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


def broken(kind: str) -> Any:
    """What takes the place of a method that works."""

    async def hang(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("injected")

    return {"raises": fail, "hangs": hang}[kind]


def failing(*_: Any, **__: Any) -> Any:
    raise RuntimeError("injected")


# The pool


async def test_a_pool_that_raises_is_bypassed_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped(fallback=QUICK, sending={"idle_time": 0.02}) as pipe:
        with monkeypatch.context() as patch:
            patch.setattr(pipe.pool, "take", failing)
            for number in range(5):
                async with pipe.connection(book.url) as conn:
                    await conn.send(str(number))
            assert pipe.manager.mode(book.url)[Stage.POOL] is Mode.BYPASSED
            assert pipe.manager.failures[Stage.POOL] == 3
        await until(lambda: book.messages == [str(number) for number in range(5)])
        await until(lambda: pipe.manager.mode(book.url)[Stage.POOL] is Mode.PROBING)
        for _ in range(20):
            async with pipe.connection(book.url) as conn:
                await conn.send("again")
        assert pipe.manager.mode(book.url)[Stage.POOL] is Mode.OPTIMIZED
        assert pipe.stats().plain_connections == 0
        assert [one.to for one in pipe.manager.transitions] == [Mode.BYPASSED, Mode.PROBING, Mode.OPTIMIZED]


@KINDS
async def test_a_pool_that_does_not_lend_is_bypassed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"pool": ConnectionPoolConfig(acquire_timeout=0.05)}
    async with ledger() as book, piped(fallback={**QUICK, "probe_after": 60}, sections=config) as pipe:
        monkeypatch.setattr(pipe.pool, "wait", broken(kind))
        for number in range(4):
            async with pipe.connection(book.url) as conn:
                await conn.send(str(number))
        assert pipe.manager.mode(book.url)[Stage.POOL] is Mode.BYPASSED
        await until(lambda: len(book.messages) == 4)


async def test_a_pool_that_does_not_take_back_costs_the_connection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped(fallback=QUICK) as pipe:
        async with pipe.connection(book.url) as conn:
            monkeypatch.setattr(pipe.pool, "give_back", failing)
            await conn.send("fine")
            await conn.flush()
        assert pipe.manager.failures[Stage.POOL] == 1
        monkeypatch.undo()
        await until(lambda: book.messages == ["fine"])


async def test_with_the_pool_bypassed_by_hand_each_loan_is_a_new_connection() -> None:
    async with ledger() as book, piped() as pipe:
        pipe.manager.bypass("pool")
        for _ in range(3):
            async with pipe.connection(book.url) as conn:
                await conn.send("x")
        conn = await pipe.connection(book.url)
        conn.release()
        shared = await pipe.connection(book.url, shared=True)
        shared.release()
        await until(lambda: len(book.connections) == 5)
        assert pipe.stats().pool.opened == 0
        assert pipe.stats().plain_connections == 0


async def test_plain_loans_that_are_never_returned_are_closed_in_the_end() -> None:
    async with ledger() as book:
        async with piped() as pipe:
            pipe.manager.bypass("pool")
            conn = await pipe.connection(book.url)
        await until(lambda: len(book.connections) == 1)
        await until(lambda: not conn.is_connected)
        conn.release()


# The batch


@KINDS
async def test_a_batcher_that_fails_is_passed_by_in_order(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped(fallback=QUICK, sending={"ordering": True, "idle_time": 0.02}) as pipe:
        for number in range(50):
            await pipe.send(book.url, str(number))
        with monkeypatch.context() as patch:
            patch.setattr(MessageBatcher, "add_message", broken(kind))
            for number in range(50, 60):
                await pipe.send(book.url, str(number))
            assert pipe.manager.mode(book.url)[Stage.BATCH] is Mode.BYPASSED
        await until(lambda: pipe.manager.mode(book.url)[Stage.BATCH] is Mode.PROBING)
        for number in range(60, 100):
            await pipe.send(book.url, str(number), priority=Priority.NORMAL)
        assert pipe.manager.mode(book.url)[Stage.BATCH] is Mode.OPTIMIZED
        await pipe.drain(book.url)
        await until(lambda: len(book.messages) >= 100)
        assert book.messages == [str(number) for number in range(100)]


@KINDS
async def test_what_a_broken_batcher_holds_leaves_before_what_comes_after(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ledger() as book, piped(fallback=QUICK, sending={"batch_timeout": 60.0}) as pipe:
        for number in range(50):
            await pipe.send(book.url, str(number))
        monkeypatch.setattr(MessageBatcher, "add_message", broken(kind))
        monkeypatch.setattr(MessageBatcher, "flush_messages", broken(kind))
        for number in range(50, 60):
            await pipe.send(book.url, str(number))
        await until(lambda: len(book.messages) >= 60)
        assert book.messages == [str(number) for number in range(60)]
        assert pipe.stats().sending.dropped == {}


async def test_a_batch_that_is_bypassed_by_hand_loses_nothing_and_keeps_the_order() -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 0.01}) as pipe:
        for number in range(3000):
            if number == 1000:
                pipe.manager.bypass("batch", book.url)
            if number == 2000:
                pipe.manager.restore("batch", book.url)
            await pipe.send(book.url, str(number))
        await pipe.drain(book.url)
        await until(lambda: len(book.messages) == 3000)
        assert book.messages == [str(number) for number in range(3000)]


async def test_the_direct_way_is_left_at_once_when_the_batch_is_bypassed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger(reliable=False) as book, piped() as pipe:
        await pipe.send(book.url, "first")
        pipe.manager.bypass("batch")
        writes: list[int] = []
        flush = Outbox.flush

        async def counting(self: Outbox) -> None:
            writes.append(1)
            await flush(self)

        monkeypatch.setattr(Outbox, "flush", counting)
        for number in range(10):
            await pipe.send(book.url, str(number))
        assert len(writes) >= 10


async def test_a_connection_whose_sending_raises_something_odd_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped(fallback={**QUICK, "probe_after": 60}) as pipe:
        await pipe.send(book.url, "0")
        line = pipe._lines[book.url]
        monkeypatch.setattr(line.carrier.connection, "send", broken("raises"))
        line.direct = line.carrier.connection.send  # type: ignore[union-attr]
        for number in range(1, 6):
            await pipe.send(book.url, str(number))
        await until(lambda: len(book.messages) == 6)
        assert book.messages == [str(number) for number in range(6)]
        assert pipe.manager.failures[Stage.BATCH] >= 1


@pytest.mark.parametrize("way", ["gathered", "batched", "plain"])
async def test_a_connection_that_does_not_do_what_it_should_is_replaced_and_nothing_is_lost(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending = {"batch_timeout": 0.002} if way == "batched" else {}
    async with ledger() as book, piped(fallback={**QUICK, "failures": 100}, sending=sending) as pipe:
        await pipe.send(book.url, "0")
        await until(lambda: book.messages == ["0"])
        if way == "plain":
            pipe.manager.bypass("batch")
        line = pipe._lines[book.url]
        monkeypatch.setattr(line.carrier.connection, "send", broken("raises"))
        line.reconsider()
        for number in range(1, 6):
            await pipe.send(book.url, str(number))
        await until(lambda: len(book.messages) == 6, seconds=2)
        assert book.messages == [str(number) for number in range(6)]
        assert pipe.manager.failures[Stage.BATCH] == 1
        assert pipe.stats().sending.dropped == {}


async def test_where_every_message_costs_a_connection_the_batch_is_bypassed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped(fallback={**QUICK, "probe_after": 60}) as pipe:
        await pipe.send(book.url, "0")
        line = pipe._lines[book.url]
        for number in range(1, 4):
            monkeypatch.setattr(await line.carrier.ready(), "send", broken("raises"))
            line.reconsider()
            await pipe.send(book.url, str(number))
        assert pipe.manager.mode(book.url)[Stage.BATCH] is Mode.BYPASSED
        await until(lambda: len(book.messages) == 4)


async def test_what_no_connection_can_send_is_told_to_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped() as pipe:
        await pipe.send(book.url, "0")
        with monkeypatch.context() as patch:
            patch.setattr(ReliableConnection, "send", broken("raises"))
            pipe._lines[book.url].reconsider()
            async with asyncio.timeout(2):
                with pytest.raises(RuntimeError, match="injected"):
                    await pipe.send(book.url, "never")
        await pipe.send(book.url, "1")
        await until(lambda: book.messages == ["0", "1"])


# The envelope


async def test_a_server_whose_envelope_is_broken_is_spoken_to_plainly() -> None:
    from support.relay import relaying

    def garble(data: bytes) -> bytes:
        head, _, rest = data.partition(b"\r\n\r\n")
        return head + b"\r\n\r\n" + b"\x82\x04junk" + rest[:0]

    edits = [garble]

    def edit(data: bytes) -> bytes:
        return edits.pop()(data) if edits else data

    async with ledger() as book, relaying(book.port, edit) as relay, piped(fallback={"failures": 1}) as pipe:
        await pipe.send(relay.url, "hello")
        await until(lambda: "hello" in book.messages)
        assert pipe.manager.mode(relay.url)[Stage.ENVELOPE] is Mode.BYPASSED
        async with pipe.connection(relay.url) as conn:
            assert not conn.is_reliable


async def test_the_envelope_bypassed_by_hand_concerns_new_connections() -> None:
    async with ledger() as book, piped() as pipe:
        async with pipe.connection(book.url) as conn:
            assert conn.is_reliable
            pipe.manager.bypass("envelope")
            assert conn.is_reliable
        await pipe.pool.drain()
        async with pipe.connection(book.url) as conn:
            assert not conn.is_reliable


# Samples


async def test_samples_compare_the_plain_way_with_the_other() -> None:
    async with ledger() as book, piped(fallback={"sample_every": 10}) as pipe:
        for speedup in pipe.manager.speedups.values():
            speedup.record(1.0, plain=True)
        for _ in range(40):
            async with pipe.connection(book.url) as conn:
                await conn.send("x")
        for number in range(2000):
            await pipe.send(book.url, str(number))
        sampled = pipe.manager.speedups
        assert all(len(sampled[stage]._seconds[False]) == 1 for stage in (Stage.POOL, Stage.BATCH))
        assert all(len(sampled[stage]._seconds[True]) == 2 for stage in (Stage.POOL, Stage.BATCH))
        await pipe.drain()
        await until(lambda: len(book.messages) == 2040)
        assert [m for m in book.messages if m != "x"] == [str(number) for number in range(2000)]
