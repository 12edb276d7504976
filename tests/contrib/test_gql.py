"""gql's Client over penstock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from gql import Client, GraphQLRequest, gql
from gql.client import AsyncClientSession
from gql.transport.exceptions import (
    TransportAlreadyConnected,
    TransportClosed,
    TransportConnectionFailed,
    TransportProtocolError,
    TransportQueryError,
    TransportServerError,
)

from penstock import CallLost, ConnectionPool, ConnectionPoolConfig, Gap, MessageCache
from penstock.contrib.gql import PenstockTransport
from support.ends import within
from support.graphqlserver import GraphQLServer, graphql_server
from support.npm import graphql_ws
from support.waiting import until


@asynccontextmanager
async def both(**options: Any) -> AsyncIterator[tuple[GraphQLServer, AsyncClientSession]]:
    async with graphql_server() as server, Client(transport=PenstockTransport(server.url, **options)) as session:
        yield server, session


def echo(n: int) -> GraphQLRequest:
    request = gql("query Echo($n: Int) { echo(n: $n) }")
    request.variable_values = {"n": n}
    return request


def transport_of(session: AsyncClientSession) -> PenstockTransport:
    transport = session.transport
    assert isinstance(transport, PenstockTransport)
    return transport


# Operations


async def test_each_of_many_callers_has_its_own_result() -> None:
    async with both() as (server, session):
        results = await asyncio.gather(*(session.execute(echo(n)) for n in range(100)))
        assert results == [{"n": n} for n in range(100)]
        assert len(server.conns) == 1


async def test_all_parts_of_a_request_are_sent() -> None:
    async with both(init={"token": "right"}) as (server, session):
        request = gql("query A { echo } query B { echo }")
        request.operation_name, request.extensions, request.variable_values = "B", {"trace": 1}, {"n": 2}
        result = await session.execute(request, get_execution_result=True)
        assert (result.data, result.errors, result.extensions) == ({"n": 2}, None, None)
        sent = server.frames[-1]["payload"]
        assert (sent["operationName"], sent["extensions"], sent["variables"]) == ("B", {"trace": 1}, {"n": 2})
        assert server.inits == [{"token": "right"}]


async def test_a_result_with_errors_is_a_query_error_with_its_data() -> None:
    async with both() as (_, session):
        request = gql("query Echo($n: Int) { fail(n: $n) }")
        request.variable_values = {"n": 1}
        with pytest.raises(TransportQueryError) as caught:
            await session.execute(request)
        assert (caught.value.errors, caught.value.data) == ([{"message": "half"}], {"n": 1})
        assert await session.execute(echo(2)) == {"n": 2}


async def test_an_operation_that_the_server_refuses_is_a_query_error() -> None:
    async with both() as (_, session):
        with pytest.raises(TransportQueryError, match="no") as caught:
            await session.execute(gql("{ refuse }"))
        assert caught.value.errors == [{"message": "no"}]
        assert await session.execute(echo(2)) == {"n": 2}


async def test_extensions_of_a_result_are_kept() -> None:
    async with both() as (server, session):

        async def answer(conn: Any, message: Any) -> None:
            payload = {"data": {"a": 1}, "extensions": {"cost": 3}}
            await server.say(conn, type="next", id=message["id"], payload=payload)

        server.on_operation = answer
        result = await session.execute(gql("{ a }"), get_execution_result=True)
        assert result.extensions == {"cost": 3}


@pytest.mark.parametrize("payload", [{}, {"more": 1}])
async def test_a_result_that_is_none_is_a_protocol_error(payload: Any) -> None:
    async with both() as (server, session):

        async def answer(conn: Any, message: Any) -> None:
            await server.say(conn, type="next", id=message["id"], payload=payload)

        server.on_operation = answer
        with pytest.raises(TransportProtocolError):
            await session.execute(gql("{ a }"))


async def test_the_client_s_timeout_ends_an_operation_at_the_server_too() -> None:
    async with both() as (server, session):
        session.client.execute_timeout = 0.05
        with pytest.raises(TimeoutError):
            await session.execute(gql("{ never }"))
        await until(lambda: server.times("complete") == 1)


async def test_a_query_is_sent_again_after_a_break_and_a_mutation_is_not() -> None:
    async with both() as (server, session):
        asking = asyncio.create_task(session.execute(gql("{ never }")))
        await until(lambda: server.times("subscribe") == 1)
        server.hang_up()
        await until(lambda: server.times("subscribe") == 2)
        asking.cancel()
        await asyncio.wait([asking])

        changing = asyncio.create_task(session.execute(gql("mutation { never }")))
        await until(lambda: server.times("subscribe") == 3)
        server.hang_up()
        with pytest.raises(TransportConnectionFailed) as caught:
            await within(changing)
        assert isinstance(caught.value.__cause__, CallLost)
        assert caught.value.__cause__.written
        assert await within(session.execute(echo(1))) == {"n": 1}


async def test_results_of_queries_are_kept_if_it_is_asked_for() -> None:
    async with both(cache=MessageCache()) as (server, session):
        for _ in range(3):
            assert await session.execute(echo(1), ttl=60) == {"n": 1}
        assert server.times("subscribe") == 1
        assert await session.execute(echo(1)) == {"n": 1}
        assert server.times("subscribe") == 2
        with pytest.raises(ValueError, match="only queries are kept"):
            await session.execute(gql("mutation { echo }"), ttl=60)


# Subscriptions


async def test_a_subscription_gives_results_until_its_iteration_is_left() -> None:
    async with both() as (server, session):
        results = session.subscribe(gql("subscription { count }"))
        taking = asyncio.ensure_future(anext(results))
        await until(lambda: len(server.subs) == 1)
        await server.emit({"count": 1})
        assert await within(taking) == {"count": 1}
        await results.aclose()
        await until(lambda: not server.subs)


async def test_a_subscription_ends_when_the_server_ends_it() -> None:
    async with both() as (server, session):

        async def answer(conn: Any, message: Any) -> None:
            for n in range(3):
                await server.say(conn, type="next", id=message["id"], payload={"data": {"count": n}})
            await server.say(conn, type="complete", id=message["id"])

        server.on_operation = answer
        request = gql("subscription { count }")
        for _ in range(2):
            assert [one async for one in session.subscribe(request)] == [{"count": n} for n in range(3)]
        asked = [[one async for one in session.subscribe(request, share=True)] for _ in range(2)]
        assert asked == [[{"count": n} for n in range(3)]] * 2


@pytest.mark.parametrize(("options", "times"), [({}, 2), ({"share": True}, 1)])
async def test_equal_subscriptions_are_one_if_it_is_asked_for(options: dict[str, bool], times: int) -> None:
    async with both() as (server, session):
        request = gql("subscription { count }")
        both_results = [session.subscribe(request, **options) for _ in range(2)]
        taking = [asyncio.ensure_future(anext(results)) for results in both_results]
        await until(lambda: len(server.subs) == times and transport_of(session).rpc.stats().subscriptions == 2)
        for n in range(times):
            await server.emit({"count": 1}, to=n)
        assert await within(asyncio.gather(*taking)) == [{"count": 1}] * 2
        for results in both_results:
            await results.aclose()


async def test_errors_of_a_subscription_are_query_errors() -> None:
    async with both() as (server, session):
        with pytest.raises(TransportQueryError):
            await within(anext(session.subscribe(gql("subscription { refuse }"))))
        results = session.subscribe(gql("subscription { count }"))
        taking = asyncio.ensure_future(anext(results))
        await until(lambda: len(server.subs) == 1)
        await server.emit({"count": 1}, errors=[{"message": "half"}])
        with pytest.raises(TransportQueryError) as caught:
            await within(taking)
        assert caught.value.data == {"count": 1}


async def test_a_query_can_be_subscribed_to_and_has_one_result() -> None:
    async with both() as (_, session):
        assert [one async for one in session.subscribe(echo(1))] == [{"n": 1}]


async def test_a_subscription_goes_on_after_a_break_and_tells_of_the_gap() -> None:
    gaps: list[Any] = []
    async with both(on_gap=lambda *gap: gaps.append(gap)) as (server, session):
        request = gql("subscription { count }")
        results = session.subscribe(request)
        taking = asyncio.ensure_future(anext(results))
        await until(lambda: len(server.subs) == 1)
        server.hang_up()
        await until(lambda: server.times("subscribe") == 2)
        await server.emit({"count": 1})
        assert await within(taking) == {"count": 1}
        assert gaps == [(request, Gap("reconnected"))]
        await results.aclose()


async def test_a_gap_that_no_callback_takes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with both() as (server, session):
        results = session.subscribe(gql("subscription { count }"))
        taking = asyncio.ensure_future(anext(results))
        await until(lambda: len(server.subs) == 1)
        server.hang_up()
        await until(lambda: server.times("subscribe") == 2)
        await server.emit({"count": 1})
        with caplog.at_level(logging.WARNING, "penstock.contrib"):
            await within(taking)
        assert [record.name for record in caplog.records] == ["penstock.contrib"]
        await results.aclose()


# Connections


async def test_transports_share_the_budget_of_a_pool() -> None:
    async with graphql_server() as server, ConnectionPool(ConnectionPoolConfig(min_connections=0)) as pool:
        for n in range(2):
            async with Client(transport=PenstockTransport(server.url, pool=pool)) as session:
                assert await session.execute(echo(n)) == {"n": n}
                assert pool.stats().in_use == 1


async def test_a_server_that_is_not_there_is_a_failed_connection() -> None:
    async with graphql_server() as server:
        pass
    with pytest.raises(TransportConnectionFailed, match=str(server.port)):
        await PenstockTransport(server.url).connect()
    async with ConnectionPool(ConnectionPoolConfig(min_connections=0)) as pool:
        with pytest.raises(TransportConnectionFailed, match=str(server.port)):
            await PenstockTransport(server.url, pool=pool).connect()


async def test_a_subscription_that_finds_no_server_in_time_is_a_timeout() -> None:
    async with graphql_server() as server:
        transport = PenstockTransport(server.url)
        await transport.connect()
    with pytest.raises(TimeoutError):
        await within(anext(transport.subscribe(gql("subscription { count }"), timeout=0.05)))
    await transport.close()


async def test_a_server_that_forbids_is_a_server_error_with_its_code() -> None:
    async with graphql_server() as server:

        async def forbid(conn: Any, message: Any) -> None:
            await conn.close(4403, "Forbidden")

        server.on_init = forbid
        with pytest.raises(TransportServerError, match="Forbidden") as caught:
            await PenstockTransport(server.url).connect()
        assert caught.value.code == 4403


async def test_operations_need_a_connection_and_end_with_it() -> None:
    async with both() as (server, session):
        transport = transport_of(session)
        with pytest.raises(TransportAlreadyConnected):
            await transport.connect()
        asking = asyncio.create_task(session.execute(gql("{ never }")))
        await until(lambda: server.times("subscribe") == 1)
        await transport.close()
        await transport.close()
        with pytest.raises(TransportClosed):
            await asking
        with pytest.raises(TransportClosed, match="not connected"):
            await session.execute(echo(1))
        await transport.connect()
        assert await session.execute(echo(1)) == {"n": 1}


# graphql-ws


async def test_a_server_s_queries_mutations_subscriptions_and_errors() -> None:
    async with graphql_ws() as url:
        async with Client(transport=PenstockTransport(url, init={"token": "right"})) as session:
            request = gql("query Echo($text: String) { echo(text: $text) }")
            request.variable_values = {"text": "ü"}
            assert await session.execute(request) == {"echo": "ü"}
            assert await session.execute(gql("mutation { add(n: 5) }")) == {"add": 5}
            counted = [one async for one in session.subscribe(gql("subscription { count(to: 5) }"))]
            assert counted == [{"count": n} for n in range(5)]
            with pytest.raises(TransportQueryError, match="noSuchField"):
                await session.execute(gql("{ noSuchField }"))
        with pytest.raises(TransportServerError):
            await PenstockTransport(url, init={"token": "wrong"}).connect()


async def test_gql_reads_the_schema_of_a_server() -> None:
    async with (
        graphql_ws() as url,
        Client(transport=PenstockTransport(url), fetch_schema_from_transport=True) as session,
    ):
        assert session.client.schema is not None
        assert session.client.schema.query_type is not None
        assert "echo" in session.client.schema.query_type.fields


@pytest.mark.parametrize("url", ["ws://me:hunter2@127.0.0.1:1/?key=hunter2", "ws://me:hunter2@host/#part"])
async def test_a_failure_is_told_without_the_secrets_of_the_url(url: str) -> None:
    with pytest.raises(TransportConnectionFailed) as caught:
        await PenstockTransport(url).connect()
    assert "hunter2" not in str(caught.value)
