"""One message after the other: what is written when, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from penstock import BatchConfig, Connection
from penstock.errors import MessageTypeError, SerializationError, WrongLoop
from penstock.transport.base import ConnectionClosedError, ConnectionClosedOK, Options, ProtocolError
from support.ends import NARROW, QUIET, Ends, cancelled, ends, start, steps, within


async def test_a_lone_message_is_written_at_once() -> None:
    async with ends() as both:
        await both.client.send("lone")
        assert both.spy.payloads == [[b"lone"]]
        await steps(3)
        await both.client.send(b"also lone")
        assert both.spy.payloads == [[b"lone"], [b"also lone"]]


async def test_the_first_message_of_an_iteration_is_written_at_once_and_the_rest_together_at_its_end() -> None:
    async with ends() as both:
        for number in range(10):
            await both.client.send(str(number))
        assert both.spy.payloads == [[b"0"]]
        await steps()
        assert both.spy.payloads == [[b"0"], [b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9"]]
        await steps(5)
        assert len(both.spy.writes) == 2


async def test_messages_of_several_tasks_travel_together() -> None:
    async with ends() as both:
        await asyncio.gather(*(both.client.send(str(number)) for number in range(10)))
        await steps(2)
        assert both.spy.frames == [str(number).encode() for number in range(10)]
        assert len(both.spy.writes) == 2


async def test_text_and_bytes_keep_their_order_in_one_write() -> None:
    messages = ["a", b"b", b"c", "d", b"e", "f", "g"]
    async with ends() as both:
        for message in messages:
            await both.client.send(message)
        await steps()
        assert len(both.spy.writes) == 2
        assert await both.received(7) == messages


async def test_a_batch_with_enough_messages_is_written_at_once() -> None:
    async with ends(BatchConfig(batch_size=10, batch_timeout=60)) as both:
        for number in range(9):
            await both.client.send(str(number))
        await steps(5)
        assert both.spy.writes == []
        await both.client.send("9")
        await steps(2)
        assert both.spy.payloads == [[str(number).encode() for number in range(10)]]


async def test_a_batch_size_counts_messages_however_long_they_are() -> None:
    async with ends(BatchConfig(batch_size=10, batch_timeout=60)) as both:
        for _ in range(9):
            await both.client.send(b"x" * 100)
        await steps(5)
        assert both.spy.writes == []
        await both.client.send(b"x" * 100)
        await steps(2)
        assert [len(payloads) for payloads in both.spy.payloads] == [10]


async def test_a_batch_with_enough_bytes_is_written_at_once() -> None:
    async with ends(BatchConfig(batch_bytes=1000, batch_timeout=60)) as both:
        for _ in range(4):
            await both.client.send(b"x" * 200)
        await steps(5)
        assert both.spy.writes == []
        await both.client.send(b"x" * 200)
        await steps(2)
        assert [len(payloads) for payloads in both.spy.payloads] == [5]


async def test_a_message_larger_than_a_batch_does_not_linger() -> None:
    async with ends(BatchConfig(batch_bytes=1000, batch_timeout=60)) as both:
        await both.client.send(b"small")
        await both.client.send(b"x" * 1000)
        await steps(2)
        assert both.spy.frames == [b"small", b"x" * 1000]
        await both.client.send(b"y" * 1000)
        await steps(2)
        assert both.spy.frames[2:] == [b"y" * 1000]


async def test_batches_of_one_message_do_not_linger() -> None:
    async with ends(BatchConfig(batch_size=1, batch_timeout=60)) as both:
        for number in range(3):
            await both.client.send(str(number))
        await steps(2)
        assert both.spy.payloads == [[b"0"], [b"1"], [b"2"]]


async def test_a_batch_waits_for_company_from_its_first_message_on() -> None:
    async with ends(BatchConfig(batch_timeout=0.05)) as both:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await both.client.send("first")
        await asyncio.sleep(0.02)
        await both.client.send("second")
        assert both.spy.writes == []
        assert await both.received(2) == ["first", "second"]
        assert 0.045 <= loop.time() - began < 1
        assert both.spy.payloads == [[b"first", b"second"]]


async def test_the_next_batch_waits_as_long() -> None:
    async with ends(BatchConfig(batch_timeout=0.02)) as both:
        for number in range(3):
            await both.client.send(str(number))
            assert await both.received(1) == [str(number)]
        assert both.spy.payloads == [[b"0"], [b"1"], [b"2"]]


async def test_without_optimizing_every_message_is_written_by_itself_at_once() -> None:
    async with ends(optimize=False) as both:
        for number in range(5):
            await both.client.send(str(number))
        assert both.spy.payloads == [[b"0"], [b"1"], [b"2"], [b"3"], [b"4"]]


async def test_without_optimizing_a_blocked_socket_makes_send_wait() -> None:
    async with ends(options=NARROW, optimize=False) as both:
        filler = await both.block()
        sending = [start(both.client.send(str(number))) for number in range(3)]
        await steps(5)
        assert not any(task.done() for task in sending)
        assert len(both.spy.writes) == 1
        both.go_on()
        await within(asyncio.gather(*sending))
        assert await both.received(4) == [filler, "0", "1", "2"]


@pytest.mark.parametrize("text", [None, True, False])
@pytest.mark.parametrize("lone", [True, False])
@pytest.mark.parametrize("message", ["text", b"bytes", bytearray(b"array"), memoryview(b"view")])
async def test_the_kind_is_what_the_type_or_text_says(message: Any, text: bool | None, lone: bool) -> None:
    async with ends() as both:
        if not lone:
            await both.client.send(b"before")
        await both.client.send(message, text=text)
        if not lone:
            assert await both.received(1) == [b"before"]
        raw = message.encode() if isinstance(message, str) else bytes(message)
        as_text = isinstance(message, str) if text is None else text
        assert await both.received(1) == [raw.decode() if as_text else raw]


@pytest.mark.parametrize("lone", [True, False])
async def test_what_can_change_is_copied_when_it_is_accepted(lone: bool) -> None:
    async with ends() as both:
        array, viewed = bytearray(b"array"), bytearray(b"view")
        both.stall()
        if not lone:
            await both.client.send(b"before")
        await both.client.send(array)
        await both.client.send(memoryview(viewed)[1:])
        array[:] = b"other"
        viewed[:] = b"else"
        both.go_on()
        assert await both.received(2 if lone else 3) == [b"array", b"iew"] if lone else [b"before", b"array", b"iew"]


async def test_a_view_of_wider_items_is_sent_as_its_bytes() -> None:
    async with ends() as both:
        await both.client.send(memoryview(b"abcdefgh").cast("I"))
        await both.client.send(memoryview(b"abcdefgh")[::2])
        assert await both.received(2) == [b"abcdefgh", b"aceg"]


async def test_subclasses_of_text_and_bytes_are_sent_as_what_they_are() -> None:
    class Name(str):
        pass

    class Raw(bytes):
        pass

    async with ends() as both:
        for _ in range(2):
            await both.client.send(Name("name"))
            await both.client.send(Raw(b"raw"))
        assert await both.received(4) == ["name", b"raw"] * 2


async def test_messages_without_content_survive() -> None:
    messages = ["", b"", "", "", b"", bytearray()]
    async with ends() as both:
        for message in messages:
            await both.client.send(message)
        assert await both.received(6) == ["", b"", "", "", b"", b""]


REFUSED: list[tuple[Any, type[Exception], str]] = [
    ("lone \ud800 surrogate", SerializationError, r"lone surrogate '\\ud800' at position 5"),
    (5, MessageTypeError, "int is no message"),
    (None, MessageTypeError, "NoneType is no message"),
    ({"key": "value"}, MessageTypeError, "json.dumps"),
    (object(), MessageTypeError, "send str as text"),
    ([1, 2], MessageTypeError, "int is no message"),
    (["\udfff"], SerializationError, "lone surrogate"),
    ([{"key": "value"}], MessageTypeError, "dict-like"),
]


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize(("message", "error", "says"), REFUSED)
async def test_what_cannot_be_sent_is_refused_and_harms_nothing(
    message: Any, error: type[Exception], says: str, optimize: bool, busy: bool
) -> None:
    async with ends(optimize=optimize) as both:
        if busy:
            await both.client.send("before")
        with pytest.raises(error, match=says):
            await both.client.send(message)
        await both.client.send("after")
        assert await both.received(1 + busy) == ["before", "after"][1 - busy :]
        await within(both.client.close())
        assert both.server.close_code == 1000


CALLS: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "send": lambda conn: conn.send("x"),
    "send_bytes": lambda conn: conn.send(b"x"),
    "send_bytearray": lambda conn: conn.send(bytearray(b"x")),
    "send_text": lambda conn: conn.send("x", text=False),
    "send_fragments": lambda conn: conn.send(["x", "y"]),
    "ping": lambda conn: conn.ping(),
    "pong": lambda conn: conn.pong(),
    "flush": lambda conn: conn.flush(),
    "close": lambda conn: conn.close(),
    "send_many": lambda conn: conn.send_many(["x", "y"]),
    "send_many_of_a_generator": lambda conn: conn.send_many(message for message in "xy"),
}


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("name", CALLS)
async def test_another_thread_is_told_and_sends_nothing(name: str, busy: bool) -> None:
    def elsewhere() -> None:
        with pytest.raises(WrongLoop, match="another event loop or thread"):
            asyncio.run(CALLS[name](both.client))  # type: ignore[arg-type]

    async with ends() as both:
        if busy:
            await both.client.send("before")
        await _in_a_thread(elsewhere, both)
        await both.client.send("after")
        await within(both.client.close())
        assert await both.rest() == (["before", "after"] if busy else ["after"])


async def _in_a_thread(function: Callable[[], None], both: Ends) -> None:
    """Run it while this loop does not turn, so that a busy connection stays busy."""
    import threading

    raised: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as exc:
            raised.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


@pytest.mark.parametrize("lone", [True, False])
async def test_nothing_can_be_sent_after_close(lone: bool) -> None:
    async with ends() as both:
        if not lone:
            await both.client.send("before")
        await within(both.client.close())
        for message in ("late", b"late", ["la", "te"]):
            with pytest.raises(ConnectionClosedOK):
                await within(both.client.send(message))
        with pytest.raises(ConnectionClosedOK):
            await within(both.client.send_many(["late", "later"]))
        assert await both.rest() == ([] if lone else ["before"])


async def test_nothing_can_be_sent_after_the_peer_has_closed() -> None:
    async with ends() as both:
        await within(both.server.close(4001, "enough"))
        with pytest.raises(ConnectionClosedError) as closed:
            await within(both.client.send("late"))
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4001


async def test_sending_on_a_lost_connection_raises() -> None:
    async with ends() as both:
        both.server_end.transport.abort()
        await within(both.client.wait_closed())
        with pytest.raises(ConnectionClosedError):
            await within(both.client.send("late"))


async def test_a_sender_in_a_loop_does_not_starve_others() -> None:
    async with ends(options=Options(ping_interval=None, max_queue=None, write_limit=1 << 30)) as both:
        turns, done = 0, False

        async def count_turns() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        counting = start(count_turns())
        both.stall()
        for _ in range(200_000):
            await both.client.send(b"tick")
        done = True
        await counting
        assert turns >= 200_000 / BatchConfig().batch_size


async def test_a_ping_goes_behind_what_was_accepted_before() -> None:
    async with ends() as both:
        for number in range(3):
            await both.client.send(str(number))
        pong = await within(both.client.ping(b"after three"))
        await both.client.send("3")
        await steps()
        assert both.spy.frames == [b"0", b"1", b"2", b"after three", b"3"]
        assert await within(pong) >= 0


async def test_a_ping_waits_while_the_socket_takes_nothing_and_can_be_cancelled() -> None:
    async with ends(options=NARROW) as both:
        await both.block()
        await both.client.send("gathered")
        pinging = start(both.client.ping(b"late"))
        await steps(5)
        assert not pinging.done()
        assert await cancelled(pinging)
        pinging = start(both.client.ping(b"later"))
        both.go_on()
        await within(await within(pinging))
        frames = both.spy.frames
        assert frames[1:] == [b"gathered", b"later"]


async def test_a_ping_that_no_frame_can_carry_is_refused_and_harms_nothing() -> None:
    async with ends() as both:
        for call in (both.client.ping, both.client.pong):
            with pytest.raises(ProtocolError, match="too long"):
                await call(b"x" * 126)
        assert await within(await both.client.ping(b"x" * 125)) >= 0


async def test_a_pong_nobody_asked_for_goes_behind_what_was_accepted() -> None:
    async with ends() as both:
        for message in ("one", "two"):
            await both.client.send(message)
        await both.client.pong(b"unasked")
        assert both.spy.frames == [b"one", b"two", b"unasked"]


async def test_both_ends_may_send_at_the_same_time() -> None:
    async with ends(options=QUIET) as both:
        numbers = [str(number) for number in range(1000)]

        async def send_all(connection: Connection) -> None:
            for number in numbers:
                await connection.send(number)

        async def receive_all(connection: Connection) -> list[Any]:
            return [await connection.recv() for _ in numbers]

        *_, at_client, at_server = await within(
            asyncio.gather(
                send_all(both.client), send_all(both.server), receive_all(both.client), receive_all(both.server)
            )
        )
        assert at_client == at_server == numbers
