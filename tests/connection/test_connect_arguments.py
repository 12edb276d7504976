"""Arguments that cannot be: refused before anything is opened, with a message that names them."""

from __future__ import annotations

import asyncio
from inspect import signature
from traceback import format_exception
from typing import Any

import aiofastnet
import pytest
from websockets import InvalidHeader, InvalidProxy, InvalidURI

import penstock
from support.certificates import trusting
from support.peers import http, peer, saying
from support.servers import each_transport

CONNECTION, UNIX_CONNECTION = asyncio.BaseEventLoop.create_connection, asyncio.AbstractEventLoop.create_unix_connection


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1/", "127.0.0.1:80", "ws://", "ws://h/#part", "", "wss:///x", "ws://me@h/"],
    ids=["http", "no scheme", "no host", "fragment", "empty", "no host in wss", "user without password"],
)
def test_what_is_no_websocket_uri_is_refused_and_shown(uri: str) -> None:
    with pytest.raises(InvalidURI) as caught:
        penstock.connect(uri)
    assert uri in str(caught.value)


@pytest.mark.parametrize("port", ["99999", "x"])
@each_transport
def test_a_port_that_is_none_is_a_value_error(transport: Any, port: str) -> None:
    with pytest.raises(ValueError, match=r"(?i)port"):
        penstock.connect(f"ws://127.0.0.1:{port}/", transport=transport)


@pytest.mark.parametrize("port", ["99999", "x", "-1"])
def test_a_port_that_is_none_is_told_with_the_uri(port: str) -> None:
    with pytest.raises(ValueError, match=rf"^ws://127\.0\.0\.1:{port}/ isn't a valid URI: its port must be") as caught:
        penstock.connect(f"ws://127.0.0.1:{port}/")
    assert not isinstance(caught.value, InvalidURI)  # as with websockets


def test_a_password_that_looks_like_a_port_is_not_told() -> None:
    secret = "s3cr" + "et"
    with pytest.raises(ValueError, match="isn't a valid URI") as caught:
        penstock.connect(f"ws://me:{secret}/{secret}@127.0.0.1/")
    assert secret not in "".join(format_exception(caught.value))


def test_a_host_that_is_none_is_told_with_the_uri() -> None:
    with pytest.raises(ValueError, match=r"^ws://\[::1/ isn't a valid URI: its host is none$"):
        penstock.connect("ws://[::1/")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optmize", "optimize"),
        ("extra_headers", "additional_headers"),
        ("ping_timout", "ping_timeout"),
        ("server_host", "server_hostname"),
        ("realiable", "reliable"),
        ("proxy_sll", "proxy_ssl"),
    ],
)
def test_an_argument_that_does_not_exist_is_refused_at_once_and_the_nearest_named(name: str, meant: str) -> None:
    wanted = rf"^connect\(\) got an unexpected keyword argument '{name}'\. Did you mean '{meant}'\?$"
    with pytest.raises(TypeError, match=wanted):
        penstock.connect("ws://127.0.0.1/", **{name: None})


def test_an_argument_like_no_other_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"^connect\(\) got an unexpected keyword argument 'colour'$"):
        penstock.connect("ws://127.0.0.1/", colour="red")


@pytest.mark.parametrize("names", [CONNECTION, UNIX_CONNECTION, aiofastnet.create_connection], ids=["tcp", "unix", "c"])
def test_all_arguments_of_create_connection_are_known(names: Any) -> None:
    given = set(signature(names).parameters) - {"self", "loop", "protocol_factory", "ssl"}
    assert penstock.connect("ws://127.0.0.1/", **dict.fromkeys(given)) is not None
    assert penstock.connect("ws://127.0.0.1/", **dict.fromkeys(f"proxy_{name}" for name in given)) is not None


@pytest.mark.parametrize("use", ["send", "recv", "close", "state"])
def test_who_forgot_to_await_is_told_so(use: str) -> None:
    with pytest.raises(AttributeError, match=rf"no attribute '{use}'.*await it.*async with") as caught:
        getattr(penstock.connect("ws://127.0.0.1/"), use)
    assert caught.value.name == use


def test_what_a_connection_does_not_have_either_is_a_plain_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^'connect' object has no attribute 'sned'$"):
        penstock.connect("ws://127.0.0.1/").sned  # type: ignore[attr-defined]  # noqa: B018


def test_ssl_for_a_plain_uri_is_refused() -> None:
    with pytest.raises(ValueError, match="ws://"):
        penstock.connect("ws://127.0.0.1/", ssl=trusting())


def test_no_ssl_for_a_secure_uri_is_refused() -> None:
    with pytest.raises(ValueError, match="wss://"):
        penstock.connect("wss://127.0.0.1/", ssl=None)


def test_no_ssl_for_a_plain_uri_is_fine() -> None:
    assert penstock.connect("ws://127.0.0.1/", ssl=None) is not None


@pytest.mark.parametrize("transport", ["aiohttp", "", None, "PICOWS"])
def test_a_transport_that_does_not_exist_is_refused_and_the_others_named(transport: Any) -> None:
    with pytest.raises(ValueError, match=r"picows.*websockets") as caught:
        penstock.connect("ws://127.0.0.1/", transport=transport)
    assert repr(transport) in str(caught.value)


@pytest.mark.parametrize("name", ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"])
@pytest.mark.parametrize("seconds", [-1, -0.001, float("nan")])
def test_a_timeout_below_zero_is_refused_and_named(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=name):
        penstock.connect("ws://127.0.0.1/", **{name: seconds})


@pytest.mark.parametrize("name", ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"])
def test_no_timeout_is_fine(name: str) -> None:
    assert penstock.connect("ws://127.0.0.1/", **{name: None}) is not None


@pytest.mark.parametrize("compression", ["gzip", "permessage-deflate", True, ""])
def test_a_compression_that_does_not_exist_is_refused(compression: Any) -> None:
    with pytest.raises(ValueError, match="compression"):
        penstock.connect("ws://127.0.0.1/", compression=compression)


def test_subprotocols_in_one_string_are_refused() -> None:
    with pytest.raises(TypeError, match=r"(?i)subprotocols"):
        penstock.connect("ws://127.0.0.1/", subprotocols="chat")


def test_create_connection_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match="accelerate"):
        penstock.connect("ws://127.0.0.1/", create_connection=object)


def test_arguments_of_the_network_are_not_given_in_a_dict() -> None:
    with pytest.raises(TypeError, match="network"):
        penstock.connect("ws://127.0.0.1/", network={"local_addr": ("127.0.0.1", 0)})


@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "nonsense", "http://"])
@each_transport
async def test_a_proxy_that_is_none_is_refused_and_shown(transport: Any, proxy: str) -> None:
    with pytest.raises(InvalidProxy) as caught:
        await penstock.connect("ws://127.0.0.1:1/", transport=transport, proxy=proxy)
    assert proxy in str(caught.value)


@each_transport
async def test_a_header_that_would_begin_another_is_refused(transport: Any) -> None:
    async with peer(saying(http("403 Forbidden"))) as server:
        with pytest.raises(InvalidHeader, match="X-Bad"):
            await penstock.connect(
                server.url, transport=transport, additional_headers={"X-Bad": "a\r\nX-Injected: yes"}
            )
        assert server.heads == []


def test_max_queue_has_to_be_high_then_low() -> None:
    with pytest.raises(ValueError, match="max_queue"):
        penstock.connect("ws://127.0.0.1/", max_queue=(1, 2))
