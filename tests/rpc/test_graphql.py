"""A client of GraphQL over WebSockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import (
    CallLost,
    CallTimeout,
    ConnectionFailed,
    ConnectionPool,
    ConnectionPoolConfig,
    Gap,
    GraphQLClosed,
    GraphQLError,
    MessageCache,
    SerializationError,
    Subscription,
)
from penstock.rpc import connect, over
from support.ends import cancelled, start, within
from support.graphqlserver import graphql_server
from support.waiting import until

pytestmark = pytest.mark.timeout(30)

TICK = "subscription { tick }"


async def test_a_query_has_its_data_and_pings_are_answered_by_the_client() -> None:
    async with graphql_server() as server, connect(server.url, "graphql", init={"token": "x"}) as rpc:
        assert await rpc.query("{ echo }", {"a": 1}) == {"a": 1}
        assert await rpc.execute("{ echo }", {"a": 2}) == {"data": {"a": 2}}
        results = await asyncio.gather(*(rpc.call("{ echo }", {"n": n}) for n in range(100)))
        assert results == [{"n": n} for n in range(100)]
        assert server.inits == [{"token": "x"}]
        assert server.frames[1] == {"type": "pong", "payload": {"t": 1}}
        assert len(server.conns) == 1


async def test_errors_are_raised_with_what_data_there_is() -> None:
    async with graphql_server() as server, connect(server.url, "graphql") as rpc:
        with pytest.raises(GraphQLError, match="half") as caught:
            await rpc.query("{ fail }", {"a": 1})
        assert caught.value.data == {"a": 1}
        with pytest.raises(GraphQLError, match="no"):
            await rpc.query("{ refuse }")
        assert (await rpc.execute("{ fail }", {}))["errors"] == [{"message": "half"}]
        with pytest.raises(SerializationError):
            await rpc.query("{ echo }", {"a": object()})
        stats = rpc.stats()
        assert (stats.answered, stats.errors) == (3, 1)


async def test_what_is_no_query_is_told_from_one() -> None:
    async with graphql_server() as server, connect(server.url, "graphql", cache=MessageCache()) as rpc:
        with pytest.raises(ValueError, match="mutation"):
            await rpc.query("mutation { echo }")
        with pytest.raises(ValueError, match="only queries are kept"):
            await rpc.call("mutation { echo }", ttl=5)
        with pytest.raises(ValueError, match="use subscribe"):
            await rpc.call(TICK)
        with pytest.raises(ValueError, match="use call"):
            rpc.subscribe("{ echo }")
        assert await rpc.call("mutation { echo }", {"a": 1}) == {"a": 1}
        assert server.times("subscribe") == 1


async def test_queries_are_kept_by_document_variables_and_identity_and_not_with_errors() -> None:
    cache = MessageCache()
    async with (
        graphql_server() as server,
        connect(server.url, "graphql", cache=cache, init={"who": 1}) as one,
        connect(server.url, "graphql", cache=cache, init={"who": 2}) as two,
    ):
        for rpc in (one, two):
            for _ in range(2):
                found = await rpc.query("{ echo }", {"a": [1]}, ttl=60)
                assert found == {"a": [1]}
                found["a"].append("changed")
            await rpc.query("{ echo }", {"a": 2}, ttl=60)
        assert server.times("subscribe") == 4
        assert one.stats().cached == 1
        for _ in range(2):
            with pytest.raises(GraphQLError):
                await one.query("{ fail }", ttl=60)
        assert server.times("subscribe") == 6


@pytest.mark.parametrize("document", ["{ never }", "mutation { never }"])
async def test_queries_are_sent_again_and_mutations_never(document: str) -> None:
    async with graphql_server() as server, connect(server.url, "graphql") as rpc:
        task = start(rpc.call(document, {"a": 1}))
        await until(lambda: server.times("subscribe") == 1)

        async def answer(conn: Any, message: Any) -> None:
            await server.say(conn, type="next", id=message["id"], payload={"data": "done"})
            await server.say(conn, type="complete", id=message["id"])

        server.on_operation = answer
        server.hang_up()
        if document.startswith("mutation"):
            with pytest.raises(CallLost):
                await within(task)
            await rpc.call("{ echo }")
            assert server.times("subscribe") == 2
        else:
            assert await within(task) == "done"


async def test_an_operation_that_is_given_up_is_completed_at_the_server() -> None:
    async with graphql_server() as server, connect(server.url, "graphql") as rpc:
        with pytest.raises(CallTimeout):
            await rpc.query("{ never }", timeout=0.05)
        await until(lambda: server.times("complete") == 1)
        task = start(rpc.query("{ never }"))
        await until(lambda: server.times("subscribe") == 2)
        assert await cancelled(task)
        await until(lambda: server.times("complete") == 2)


async def test_equal_subscriptions_are_one_at_the_server_and_others_are_not() -> None:
    async with graphql_server() as server, connect(server.url, "graphql") as rpc:
        async with (
            rpc.subscribe(TICK) as one,
            rpc.subscribe(TICK) as two,
            rpc.subscribe(TICK, {"a": 1}) as other,
            rpc.subscribe(TICK, share=False) as alone,
        ):
            await until(lambda: len(server.subs) == 3)
            for number in range(3):
                await server.emit(number, to=number)
            assert [await within(anext(events)) for events in (one, two, other, alone)] == [0, 0, 1, 2]
            two.close()
            await server.emit(3, to=0)
            assert await within(anext(one)) == 3
            assert len(server.subs) == 3
        await until(lambda: not server.subs)


async def test_a_subscription_ends_with_the_server_s_or_with_its_error() -> None:
    async with graphql_server() as server, connect(server.url, "graphql") as rpc:
        events = rpc.subscribe(TICK)
        task = start(collect(events))
        await until(lambda: len(server.subs) == 1)
        await server.emit("last")
        conn, id = server.subs[0]  # noqa: A001
        await server.say(conn, type="complete", id=id)
        assert await within(task) == ["last"]
        with pytest.raises(GraphQLError, match="no"):
            await within(collect(rpc.subscribe("subscription { refuse }")))


async def test_an_event_with_errors_is_raised_and_the_next_comes() -> None:
    async with (
        graphql_server() as server,
        connect(server.url, "graphql") as rpc,
        rpc.subscribe(TICK) as events,
        rpc.subscribe(TICK, whole=True) as whole,
    ):
        await until(lambda: len(server.subs) == 1)
        await server.emit(None, errors=[{"message": "bad"}])
        await server.emit("good")
        with pytest.raises(GraphQLError, match="bad"):
            await within(anext(events))
        assert await within(anext(events)) == "good"
        assert (await within(anext(whole)))["errors"] == [{"message": "bad"}]


async def test_after_a_reconnect_a_subscription_goes_on_with_a_gap() -> None:
    async with graphql_server() as server, connect(server.url, "graphql", init=lambda: {"n": 1}) as rpc:
        async with rpc.subscribe(TICK) as events:
            await until(lambda: len(server.subs) == 1)
            server.hang_up()
            assert await within(anext(events)) == Gap("reconnected")
            await until(lambda: len(server.subs) == 1)
            await server.emit(2)
            assert await within(anext(events)) == 2
        assert server.inits == [{"n": 1}] * 2
        assert rpc.stats().gaps == 1


async def test_a_server_that_lets_nobody_in_says_why() -> None:
    async with graphql_server() as server:

        async def forbid(conn: Any, message: Any) -> None:
            await conn.close(4403, "Forbidden")

        server.on_init = forbid
        with pytest.raises(GraphQLClosed, match="Forbidden") as caught:
            await connect(server.url, "graphql")
        assert caught.value.is_final

        async def hang_up(conn: Any, message: Any) -> None:
            await conn.close(1011)

        server.on_init = hang_up
        with pytest.raises(ConnectionFailed):
            await connect(server.url, "graphql")


async def test_a_client_that_is_let_in_no_more_stops_trying() -> None:
    async with graphql_server() as server, connect(server.url, "graphql") as rpc:

        async def forbid(conn: Any, message: Any) -> None:
            await conn.close(4403, "Forbidden")

        server.on_init = forbid
        server.hang_up()
        with pytest.raises(GraphQLClosed):
            await within(rpc.query("{ echo }"))
        assert len(server.inits) == 2


async def test_a_server_that_never_accepts_is_waited_for_as_long_as_is_said() -> None:
    async with graphql_server() as server:

        async def silent(conn: Any, message: Any) -> None:
            pass

        server.on_init = silent
        with pytest.raises(CallTimeout, match="greeting"):
            await connect(server.url, "graphql", greeting=0.05)


async def test_over_a_pool_each_connection_is_initialised_once_and_lent_to_nobody_after() -> None:
    async with graphql_server() as server, ConnectionPool(ConnectionPoolConfig(min_connections=0)) as pool:
        async with over(pool, server.url, "graphql", connections=2) as rpc:
            for _ in range(3):
                await asyncio.gather(*(rpc.query("{ echo }", {"n": n}) for n in range(100)))
                await asyncio.sleep(0.15)
            assert len(server.inits) == len(server.conns) <= 2
        await until(lambda: pool.stats().size == 0)


async def test_init_by_a_function_and_a_cache_need_an_identity() -> None:
    with pytest.raises(ValueError, match="identity="):
        connect("ws://localhost", "graphql", init=dict, cache=MessageCache())


async def collect(events: Subscription) -> list[Any]:
    return [event async for event in events]
