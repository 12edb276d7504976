"""What a connection tells about itself."""

from __future__ import annotations

import logging
from uuid import UUID

import pytest

from penstock.transport.base import State
from support.links import HOST, Link


async def test_every_connection_has_an_id_of_its_own(link: Link) -> None:
    ids = set()
    for _ in range(3):
        async with link() as (conn, _peer):
            assert isinstance(conn.id, UUID)
            ids.add(conn.id)
    assert len(ids) == 3


async def test_a_new_connection_is_open_and_has_no_latency_yet(link: Link) -> None:
    async with link() as (conn, _peer):
        assert (conn.state, conn.latency) == (State.OPEN, 0)
        assert (conn.close_code, conn.close_reason) == (None, None)
        assert (conn.subprotocol, str(conn.id) in repr(conn)) == (None, True)


async def test_it_logs_where_it_is_told(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "my.own")
    async with link(logger=logging.getLogger("my.own")) as (conn, _peer):
        conn.logger.info("through the connection")
    assert ("my.own", logging.INFO, "through the connection") in caplog.record_tuples


async def test_the_transport_is_that_of_asyncio(link: Link) -> None:
    async with link() as (conn, _peer):
        assert conn.transport.get_write_buffer_size() == 0
        assert not conn.transport.is_closing()
        await conn.close()
        assert conn.transport.is_closing()


async def test_the_addresses_are_those_of_the_socket(socket_link: Link) -> None:
    async with socket_link() as (conn, peer):
        assert conn.local_address == peer.remote_address
        assert conn.remote_address == peer.local_address
        assert conn.local_address[0] == HOST
        assert conn.local_address == conn.transport.get_extra_info("sockname")
        assert conn.remote_address == conn.transport.get_extra_info("peername")


async def test_a_closed_connection_tells_its_end_and_who_the_peer_was(socket_link: Link) -> None:
    async with socket_link() as (conn, peer):
        before = (conn.id, conn.remote_address, conn.request, conn.response)
        await peer.close(3000, "over")
        await conn.wait_closed()
        assert (conn.state, conn.close_code, conn.close_reason) == (State.CLOSED, 3000, "over")
        assert (conn.id, conn.remote_address, conn.request, conn.response) == before


async def test_request_and_response_of_the_handshake_are_kept(socket_link: Link) -> None:
    async with socket_link() as (conn, peer):
        request, response = conn.request, conn.response
        assert request.path == peer.request.path == "/"
        assert request.headers["Sec-WebSocket-Key"] == peer.request.headers["Sec-WebSocket-Key"]
        assert request.headers["Sec-WebSocket-Version"] == "13"
        assert request.headers["Host"] == peer.request.headers["Host"]
        assert response.status_code == peer.response.status_code == 101
        assert response.headers["Sec-WebSocket-Accept"] == peer.response.headers["Sec-WebSocket-Accept"]


@pytest.mark.parametrize(("ours", "theirs", "chosen"), [("a", "a", "a"), ("cb", "bd", "b")])
async def test_the_subprotocol_is_what_both_speak(socket_link: Link, ours: str, theirs: str, chosen: str) -> None:
    async with socket_link(subprotocols=list(ours), peer={"subprotocols": list(theirs)}) as (conn, peer):
        assert conn.subprotocol == peer.subprotocol == chosen
