"""AsyncWeb3 over penstock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from web3 import AsyncWeb3
from web3.exceptions import (
    ProviderConnectionError,
    TimeExhausted,
    TransactionNotFound,
    Web3RPCError,
    Web3ValueError,
)
from web3.utils.subscriptions import NewHeadsSubscription
from websockets import ConnectionClosed

from penstock import (
    CallLost,
    ConnectionDenied,
    ConnectionPool,
    ConnectionPoolConfig,
    ConsumerTooSlow,
    Gap,
    MessageCache,
)
from penstock.contrib.web3 import PenstockProvider
from support.ends import within
from support.npm import ganache
from support.rpcserver import RpcServer, rpc_server
from support.waiting import until

HEAD = {"number": "0x1", "hash": "0x" + "11" * 32}


@asynccontextmanager
async def node() -> AsyncIterator[RpcServer]:
    """A server whose answers have the form of a node's."""
    async with rpc_server() as server:

        async def subscribe(conn: Any, message: Any) -> None:
            server.subs.append((conn, f"0x{len(server.frames)}"))
            await server.reply(conn, message, server.subs[-1][1])

        async def number(conn: Any, message: Any) -> None:
            await server.reply(conn, message, "0x7")

        async def never(conn: Any, message: Any) -> None:
            pass

        server.own = {"eth_subscribe": subscribe, "eth_blockNumber": number, "eth_sendRawTransaction": never}
        server.own |= dict.fromkeys(["eth_chainId", "web3_clientVersion"], number)
        yield server


@asynccontextmanager
async def both(**options: Any) -> AsyncIterator[tuple[RpcServer, AsyncWeb3[PenstockProvider]]]:
    async with node() as server, AsyncWeb3(PenstockProvider(server.url, **options)) as w3:
        yield server, w3


async def result(w3: AsyncWeb3[PenstockProvider], method: str, *params: Any) -> Any:
    return (await w3.provider.make_request(method, list(params)))["result"]  # type: ignore[arg-type]


# Calls


async def test_each_of_many_callers_has_its_own_answer() -> None:
    async with both() as (_, w3):
        echoed = await asyncio.gather(*(result(w3, "echo", n) for n in range(1000)))
        assert echoed == [[n] for n in range(1000)]
        assert await asyncio.gather(*(w3.eth.block_number for _ in range(600))) == [7] * 600


async def test_params_are_written_as_web3_writes_them() -> None:
    async with both() as (server, w3):
        await result(w3, "echo", b"\xab\xcd", 2**255)
        assert server.asked[-1]["params"] == ["0xabcd", 2**255]


async def test_an_error_of_the_node_is_web3_s_with_all_that_it_tells() -> None:
    async with both() as (server, w3):

        async def fail(conn: Any, message: Any) -> None:
            await server._single(conn, message | {"method": "fail", "params": "why"})

        server.own["eth_gasPrice"] = fail
        with pytest.raises(Web3RPCError) as caught:
            await w3.eth.gas_price
        assert caught.value.rpc_response is not None
        assert caught.value.rpc_response["error"] == {"code": -32000, "message": "no", "data": "why"}
        assert await w3.eth.block_number == 7


async def test_a_call_that_is_not_answered_in_time_exhausts_its_time() -> None:
    async with both(request_timeout=0.05) as (_, w3):
        with pytest.raises(TimeExhausted, match="eth_sendRawTransaction"):
            await w3.eth.send_raw_transaction(b"\x01")


async def test_a_read_is_sent_again_after_a_break_and_a_write_is_not() -> None:
    async with both() as (server, w3):

        async def once(conn: Any, message: Any) -> None:
            server.own["eth_blockNumber"] = server.own["eth_chainId"]
            conn.transport.abort()

        server.own["eth_blockNumber"] = once
        assert await within(w3.eth.block_number) == 7
        assert server.times("eth_blockNumber") == 2

        writing = asyncio.create_task(w3.eth.send_raw_transaction(b"\x01"))
        await until(lambda: server.times("eth_sendRawTransaction") == 1)
        server.hang_up()
        with pytest.raises(CallLost) as caught:
            await within(writing)
        assert isinstance(caught.value, ConnectionClosed)
        assert caught.value.written
        assert await within(w3.eth.block_number) == 7


async def test_a_call_that_is_cancelled_is_forgotten() -> None:
    async with both() as (server, w3):
        writing = asyncio.create_task(w3.eth.send_raw_transaction(b"\x01"))
        await until(lambda: server.times("eth_sendRawTransaction") == 1)
        writing.cancel()
        await asyncio.wait([writing])
        await until(lambda: w3.provider.rpc.stats().in_flight == 0)


async def test_answers_that_nobody_waits_for_are_taken_from_the_socket() -> None:
    async with both() as (_, w3):
        await w3.socket.send("echo", [1])
        answer = await within(w3.socket.recv())
        assert answer["result"] == [1]


async def test_an_answer_can_be_asked_for_once_whether_it_has_come_or_not() -> None:
    async with both() as (_, w3):
        request = await w3.provider.send_request("echo", [1])
        await until(lambda: not w3.provider._waiting)
        assert (await w3.provider.recv_for_request(request))["result"] == [1]
        with pytest.raises(Web3ValueError, match="no answer"):
            await w3.provider.recv_for_request(request)


async def test_the_client_reads_and_web3_does_not() -> None:
    async with both() as (_, w3):
        with pytest.raises(NotImplementedError):
            await w3.provider.socket_recv()


# Batches


async def test_batches_at_the_same_time_each_have_their_own_answers() -> None:
    async with both() as (_, w3):

        async def batch(first: int) -> list[Any]:
            requests = [("echo", [n]) for n in range(first, first + 20)]
            return [one["result"] for one in await w3.provider.make_batch_request(requests)]  # type: ignore[arg-type]

        results = await asyncio.gather(*(batch(n) for n in range(10)))
        assert results == [[[n] for n in range(first, first + 20)] for first in range(10)]
        assert await w3.provider.make_batch_request([]) == []


async def test_a_batch_has_its_results_in_order_and_raises_the_error_of_one() -> None:
    async with both() as (_, w3):
        async with w3.batch_requests() as batch:
            batch.add(w3.eth.block_number)
            batch.add(w3.eth.chain_id)
            results: list[Any] = [*await batch.async_execute()]
            assert results == [7, 7]
        outcomes = await w3.provider.make_batch_request([("echo", [1]), ("fail", [])])  # type: ignore[list-item]
        assert [outcome.get("result") for outcome in outcomes] == [[1], None]
        assert outcomes[1]["error"]["code"] == -32000


async def test_a_batch_that_is_not_answered_in_time_exhausts_its_time() -> None:
    async with both(request_timeout=0.05) as (_, w3):
        with pytest.raises(TimeExhausted):
            await w3.provider.make_batch_request([("echo", [1]), ("never", [])])  # type: ignore[list-item]


# Subscriptions


async def test_a_subscription_gives_events_until_it_is_ended_at_the_server_too() -> None:
    async with both() as (server, w3):
        id = await w3.eth.subscribe("newHeads")  # noqa: A001
        stream = w3.socket.process_subscriptions()
        for _ in range(3):
            await server.emit(HEAD)
            event = await within(anext(stream))
            assert (event["subscription"], event["result"]["number"]) == (id, 1)
        assert await w3.eth.unsubscribe(id)
        await until(lambda: server.times("eth_unsubscribe") == 1)
        assert server.asked[-1]["params"] != [id]
        assert not w3.subscription_manager.subscriptions


async def test_an_event_that_comes_with_the_confirmation_is_not_missed() -> None:
    async with both() as (server, w3):

        async def eager(conn: Any, message: Any) -> None:
            async with asyncio.TaskGroup() as group:  # in one write
                group.create_task(server.reply(conn, message, "0x5"))
                group.create_task(conn.send(server.event("0x5", HEAD)))

        server.own["eth_subscribe"] = eager
        heads = asyncio.Queue[Any]()
        for _ in range(20):
            await w3.subscription_manager.subscribe(
                NewHeadsSubscription(handler=lambda context: heads.put(context.result))
            )
            handling = asyncio.create_task(w3.subscription_manager.handle_subscriptions())
            assert (await within(heads.get()))["number"] == 1
            await w3.subscription_manager.unsubscribe_all()
            await within(handling)


async def test_a_subscription_goes_on_under_its_id_after_a_break_and_tells_of_the_gap() -> None:
    gaps: list[Any] = []
    async with both(on_gap=lambda *gap: gaps.append(gap)) as (server, w3):
        id = await w3.eth.subscribe("newHeads")  # noqa: A001
        stream = w3.socket.process_subscriptions()
        server.hang_up()
        await until(lambda: len(server.subs) == 1 and server.times("eth_subscribe") == 2)
        await server.emit(HEAD)
        event = await within(anext(stream))
        assert event["subscription"] == id
        assert gaps == [(id, Gap("reconnected"))]


@pytest.mark.parametrize("on_gap", [None, lambda id, gap: 1 / 0])  # noqa: A006
async def test_a_gap_that_no_callback_takes_is_logged(on_gap: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with both(on_gap=on_gap) as (server, w3):
        await w3.eth.subscribe("newHeads")
        server.hang_up()
        with caplog.at_level(logging.WARNING, "penstock.contrib"):
            await until(lambda: any(record.name == "penstock.contrib" for record in caplog.records))


@pytest.mark.parametrize("has_handler", [False, True])
async def test_who_is_too_slow_gets_what_waits_and_then_the_reason(has_handler: bool) -> None:
    seen: list[Any] = []

    async def see(context: Any) -> None:
        seen.append(context)

    async with both(subscription_response_queue_size=10) as (server, w3):
        id = await w3.eth.subscribe("newHeads", handler=see if has_handler else None)  # noqa: A001

        async def take() -> None:
            if has_handler:
                await w3.subscription_manager.handle_subscriptions()
            async for event in w3.socket.process_subscriptions():
                await see(event)

        for _ in range(1200):
            await server.emit(HEAD)
        await until(lambda: w3.provider.rpc.stats().too_slow == 1)
        with pytest.raises(ConsumerTooSlow):
            await within(take())
        assert len(seen) > 1000
        assert await w3.eth.unsubscribe(id)


async def test_a_subscription_that_the_node_refuses_is_an_error() -> None:
    async with both() as (server, w3):

        async def refuse(conn: Any, message: Any) -> None:
            await server._single(conn, message | {"method": "fail"})

        server.own["eth_subscribe"] = refuse
        with pytest.raises(Web3RPCError):
            await w3.eth.subscribe("newHeads")
        assert w3.provider.rpc.stats().subscriptions == 0


@pytest.mark.parametrize("is_full", [False, True])
async def test_disconnecting_ends_who_takes_events(is_full: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with both(subscription_response_queue_size=1) as (server, w3):
        await w3.eth.subscribe("newHeads")
        stream = w3.socket.process_subscriptions()
        if is_full:
            await server.emit(HEAD)
            await until(w3.manager._request_processor._subscription_response_queue.full)
            await w3.provider.disconnect()
            assert not [record for record in caplog.records if record.name == "asyncio"]
        else:
            taking = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            await w3.provider.disconnect()
            with pytest.raises(StopAsyncIteration):
                await within(taking)


# Connections


async def test_providers_share_the_connections_of_a_pool() -> None:
    async with node() as server, ConnectionPool(ConnectionPoolConfig(max_connections=1, min_connections=0)) as pool:
        for _ in range(2):
            async with AsyncWeb3(PenstockProvider(server.url, pool=pool)) as w3:
                assert await w3.eth.block_number == 7
        assert len(server.conns) == 1


async def test_with_a_cache_the_node_is_asked_once_for_what_cannot_change() -> None:
    async with both(cache=MessageCache()) as (server, w3):
        for _ in range(3):
            assert await w3.eth.chain_id == 7
            assert await w3.eth.block_number == 7
        assert (server.times("eth_chainId"), server.times("eth_blockNumber")) == (1, 3)


async def test_without_a_cache_web3_s_own_is_at_its_place() -> None:
    async with both(cache_allowed_requests=True) as (server, w3):
        for _ in range(3):
            assert await result(w3, "web3_clientVersion") == "0x7"
        assert server.times("web3_clientVersion") == 1


async def test_options_of_the_client_are_passed_on() -> None:
    async with both(rpc_options={"idempotent": ["eth_sendRawTransaction"]}) as (server, w3):

        async def cut(conn: Any, message: Any) -> None:
            server.own["eth_sendRawTransaction"] = server.own["eth_blockNumber"]
            conn.transport.abort()

        server.own["eth_sendRawTransaction"] = cut
        await within(w3.eth.send_raw_transaction(b"\x01"))
        assert server.times("eth_sendRawTransaction") == 2


async def test_a_node_that_is_not_there_is_a_provider_s_error(unused: int) -> None:
    provider = PenstockProvider(f"ws://127.0.0.1:{unused}", max_connection_retries=1)
    with pytest.raises(ProviderConnectionError):
        async with AsyncWeb3(provider):
            pass
    assert not await provider.is_connected()
    async with ConnectionPool(ConnectionPoolConfig(min_connections=0)) as pool:
        provider = PenstockProvider(f"ws://127.0.0.1:{unused}", pool=pool, max_connection_retries=1)
        with pytest.raises(ProviderConnectionError):
            await provider.connect()
    assert str(unused) in str(provider)


@pytest.fixture
async def unused() -> int:
    async with rpc_server() as server:
        return server.port


async def test_a_refusal_for_good_is_not_tried_again() -> None:
    attempts = []

    async def refuse(conn: Any) -> None:
        attempts.append(conn)
        raise ConnectionDenied("ws://localhost", "no")

    async with (
        node() as server,
        ConnectionPool(ConnectionPoolConfig(min_connections=0), on_connect=refuse) as pool,
    ):
        with pytest.raises(ProviderConnectionError, match="no"):
            await PenstockProvider(server.url, pool=pool).connect()
        assert len(attempts) == 1


async def test_whether_it_is_connected_is_whether_the_node_answers() -> None:
    async with both(request_timeout=0.05, cache=MessageCache()) as (server, w3):
        assert await w3.is_connected()
        server.own["web3_clientVersion"] = server.own["eth_sendRawTransaction"]
        assert not await w3.is_connected()
        with pytest.raises(ProviderConnectionError, match="does not answer"):
            await w3.is_connected(show_traceback=True)

        async def fail(conn: Any, message: Any) -> None:
            await server._single(conn, message | {"method": "fail"})

        server.own["web3_clientVersion"] = fail
        assert await w3.is_connected()


async def test_calls_need_a_connection_and_end_with_it() -> None:
    async with both() as (server, w3):
        writing = asyncio.create_task(w3.eth.send_raw_transaction(b"\x01"))
        await until(lambda: server.times("eth_sendRawTransaction") == 1)
        with pytest.raises(ProviderConnectionError, match="already"):
            await w3.provider.connect()
        await w3.provider.disconnect()
        await w3.provider.disconnect()
        with pytest.raises(ProviderConnectionError):
            await writing
        with pytest.raises(ProviderConnectionError, match="not connected"):
            await w3.eth.block_number


async def test_a_provider_can_be_connected_again() -> None:
    async with node() as server, aclosing(aiter(AsyncWeb3(PenstockProvider(server.url)))) as again:
        for _ in range(2):
            w3 = await anext(again)
            assert await w3.eth.block_number == 7
            await w3.eth.subscribe("newHeads")
        await w3.provider.disconnect()


# Ganache, an Ethereum node for development


async def test_a_node_s_calls_batches_errors_and_heads() -> None:
    async with ganache() as url, AsyncWeb3(PenstockProvider(url)) as w3:
        assert await w3.eth.chain_id == 1337
        first, second = (await w3.eth.accounts)[:2]
        before = await w3.eth.get_balance(second)
        id = await w3.eth.subscribe("newHeads")  # noqa: A001
        sent = await w3.eth.send_transaction({"from": first, "to": second, "value": w3.to_wei(1, "ether")})
        head = await within(anext(w3.socket.process_subscriptions()))
        assert (head["subscription"], head["result"]["number"]) == (id, 1)
        assert (await w3.eth.wait_for_transaction_receipt(sent))["status"] == 1
        async with w3.batch_requests() as batch:
            batch.add(w3.eth.get_balance(second))
            batch.add(w3.eth.get_block(1))
            balance, block = await batch.async_execute()
        assert balance - before == w3.to_wei(1, "ether")
        assert block["hash"] == head["result"]["hash"]
        assert await w3.eth.unsubscribe(id)
        with pytest.raises(TransactionNotFound):
            await w3.eth.get_transaction("0x" + "11" * 32)
        with pytest.raises(Web3RPCError):
            await w3.eth.send_raw_transaction(b"\x01")


async def test_what_it_says_of_its_url_has_no_secrets_in_it() -> None:
    provider = PenstockProvider("ws://me:hunter2@127.0.0.1:1/?key=hunter2")
    assert str(provider) == "penstock: ws://127.0.0.1:1/?key=***"
    with pytest.raises(ProviderConnectionError) as caught:
        await provider.is_connected(show_traceback=True)
    assert "hunter2" not in str(caught.value)
