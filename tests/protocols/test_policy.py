"""What may be kept for how long; case 18 of the design: never an error, null only if it was asked for."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.errors import RpcError
from penstock.protocols import ethereum
from penstock.protocols.calls import Call, Failed, Late, Reply
from penstock.protocols.ethereum import LONG, READS, SHORT
from penstock.protocols.policy import CachePolicy

HASH = "0x" + "ab" * 32


def test_what_is_not_named_is_not_kept() -> None:
    policy = CachePolicy({"a": 5})
    assert policy.ttl("a") == 5.0
    assert policy.ttl("b", [1]) == 0.0


def test_a_rule_may_look_at_the_parameters() -> None:
    policy = CachePolicy({"a": lambda params: params[0]})
    assert policy.ttl("a", [7]) == 7.0
    assert policy.ttl("a", Raw(b"[8]")) == 8.0
    assert policy.ttl("a", Raw(b"[1e400]")) == 0.0
    with pytest.raises(ValueError, match="a: 'x' are no seconds"):
        policy.ttl("a", ["x"])


@pytest.mark.parametrize("seconds", [-1, nan, inf, "60", None, True, [1]])
def test_a_wrong_table_is_refused_by_name(seconds: Any) -> None:
    with pytest.raises(ValueError, match="eth_chainId"):
        CachePolicy({"good": 1, "eth_chainId": seconds})


@pytest.mark.parametrize("method", ["", 5, None])
def test_a_method_is_a_name(method: Any) -> None:
    with pytest.raises(ValueError, match="no method"):
        CachePolicy({method: 1})


def test_case_18_errors_are_never_kept_and_null_only_if_asked_for() -> None:
    call = Call("a", '"a"', None)
    strict, lax = CachePolicy({}), CachePolicy({}, nulls=True)
    failed = Failed(call, RpcError(1, "x"), Raw(b"{}"))
    for policy in (strict, lax):
        assert policy.may_keep(Reply(call, Raw(b"0")))
        assert policy.may_keep(Reply(call, Raw(b'"null"')))
        assert not policy.may_keep(failed)
        assert not policy.may_keep(Late(call, Raw(b"1")))
    assert not strict.may_keep(Reply(call, Raw(b"null")))
    assert lax.may_keep(Reply(call, Raw(b"null")))


# Ethereum


@pytest.mark.parametrize(
    ("method", "params", "ttl"),
    [
        ("eth_chainId", [], LONG),
        ("eth_chainId", None, LONG),
        ("net_version", [], LONG),
        ("eth_getBlockByHash", [HASH, False], LONG),
        ("eth_getBlockByNumber", ["0x64", False], LONG),
        ("eth_getBlockByNumber", ["0x65", False], SHORT),
        ("eth_getBlockByNumber", ["latest", False], 0),
        ("eth_getBlockByNumber", ["finalized", False], 0),
        ("eth_getBlockByNumber", ["safe", False], 0),
        ("eth_getBlockByNumber", ["pending", False], 0),
        ("eth_getBlockByNumber", ["earliest", False], 0),
        ("eth_getBlockByNumber", ["0x", False], 0),
        ("eth_getBlockByNumber", ["0x064", False], 0),
        ("eth_getBlockByNumber", ["100", False], 0),
        ("eth_getBlockByNumber", [100, False], 0),
        ("eth_getBlockReceipts", [HASH], LONG),
        ("eth_getBlockByNumber", [], 0),
        ("eth_getBlockByNumber", {}, 0),
        ("eth_getBlockByNumber", None, 0),
        ("eth_getBalance", ["0xaa", "0x64"], LONG),
        ("eth_getBalance", ["0xaa", "0x65"], 0),
        ("eth_getBalance", ["0xaa", "latest"], 0),
        ("eth_getBalance", ["0xaa"], 0),
        ("eth_getBalance", ["0xaa", {"blockHash": HASH}], LONG),
        ("eth_getBalance", ["0xaa", {"blockHash": HASH, "requireCanonical": True}], 0),
        ("eth_getBalance", ["0xaa", {"blockNumber": "0x1"}], LONG),
        ("eth_getBalance", ["0xaa", {}], 0),
        ("eth_getStorageAt", ["0xaa", "0x0", "0x1"], LONG),
        ("eth_getLogs", [{"blockHash": HASH}], LONG),
        ("eth_getLogs", [{"blockHash": 5}], 0),
        ("eth_getLogs", [{"fromBlock": "0x1", "toBlock": "0x64"}], LONG),
        ("eth_getLogs", [{"fromBlock": "0x1", "toBlock": "0x65"}], 0),
        ("eth_getLogs", [{"fromBlock": "0x1"}], 0),
        ("eth_getLogs", [], 0),
        ("eth_getTransactionReceipt", [HASH], SHORT),
        ("eth_getTransactionByHash", [HASH], 0),
        ("eth_call", [{}, "0x1"], 0),
        ("eth_blockNumber", [], 0),
        ("eth_sendRawTransaction", ["0x00"], 0),
        ("eth_newFilter", [{}], 0),
        ("eth_getFilterChanges", ["0x1"], 0),
        ("eth_subscribe", ["newHeads"], 0),
    ],
)
def test_what_an_ethereum_node_says_is_kept_as_long_as_it_holds(method: str, params: Any, ttl: float) -> None:
    assert ethereum.policy(finalized=lambda: 100).ttl(method, params) == ttl


def test_no_block_is_final_unless_that_is_known() -> None:
    assert ethereum.policy().ttl("eth_getBlockByNumber", ["0x0", False]) == SHORT
    assert ethereum.policy().ttl("eth_getBalance", ["0xaa", "0x0"]) == 0


def test_more_methods_may_be_kept() -> None:
    assert ethereum.policy({"eth_call": 1.0, "eth_chainId": 0}).ttl("eth_call", []) == 1.0
    assert ethereum.policy({"eth_chainId": 0}).ttl("eth_chainId") == 0


WRITES = [
    "eth_sendRawTransaction",
    "eth_sendTransaction",
    "eth_sign",
    "eth_signTypedData_v4",
    "eth_newFilter",
    "eth_newBlockFilter",
    "eth_newPendingTransactionFilter",
    "eth_getFilterChanges",
    "eth_getFilterLogs",
    "eth_uninstallFilter",
    "eth_subscribe",
    "eth_unsubscribe",
    "eth_submitWork",
    "personal_sign",
    "personal_unlockAccount",
    "evm_mine",
    "debug_setHead",
]


@pytest.mark.parametrize("method", WRITES)
def test_writes_filters_and_subscriptions_are_never_kept_nor_sent_twice(method: str) -> None:
    with pytest.raises(ValueError, match=method):
        ethereum.policy({method: 1})
    assert method not in READS


def test_everything_that_is_kept_is_read() -> None:
    policy = ethereum.policy(finalized=lambda: 100)
    kept = {name for name in READS if policy.ttl(name, ["0x1", "0x1", "0x1"]) > 0}
    assert {"eth_chainId", "eth_getBlockByHash", "eth_getBlockByNumber", "eth_getProof"} <= kept


@given(
    st.sampled_from(sorted(READS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("blockHash"), inner, max_size=3)
        ),
    ),
)
def test_any_parameters_have_a_time(method: str, params: Any) -> None:
    assert ethereum.policy(finalized=lambda: 100).ttl(method, params) >= 0
