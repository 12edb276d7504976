"""Ethereum's methods: what may be kept for how long, and what may be asked twice or in an array. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from penstock.protocols.policy import CachePolicy, Rule

LONG = 3600.0
"""Of what never changes. Not for ever: a development chain is reset, and then has the same URL."""
SHORT = 2.0
"""Of what a reorganisation can change: less than a block of the chains where one is likely."""

_QUANTITY = re.compile(r"0[xX](0|[1-9a-fA-F][0-9a-fA-F]*)\Z")

BY_HASH = frozenset(
    # A block's hash is that of its content, so that what is found by it cannot become something else.
    {
        "eth_getBlockByHash",
        "eth_getBlockTransactionCountByHash",
        "eth_getTransactionByBlockHashAndIndex",
        "eth_getUncleByBlockHashAndIndex",
        "eth_getUncleCountByBlockHash",
    }
)
BY_NUMBER = {
    # With the place of the block among the parameters.
    "eth_getBlockByNumber": 0,
    "eth_getBlockReceipts": 0,
    "eth_getBlockTransactionCountByNumber": 0,
    "eth_getTransactionByBlockNumberAndIndex": 0,
    "eth_getUncleByBlockNumberAndIndex": 0,
    "eth_getUncleCountByBlockNumber": 0,
}
BY_STATE = {
    # State after a block. Of recent blocks callers want it fresh, and there are many: it is kept of settled ones alone.
    "eth_getBalance": 1,
    "eth_getCode": 1,
    "eth_getProof": 2,
    "eth_getStorageAt": 2,
    "eth_getTransactionCount": 1,
}
FRESH_READS = frozenset(
    # Read, and not kept: what they tell changes from block to block, or (eth_call, estimates) may depend on the time
    # and on the pending state. A transaction that is found by its hash changes when it is mined, which is what callers
    # wait for.
    {
        "eth_accounts",
        "eth_blobBaseFee",
        "eth_blockNumber",
        "eth_call",
        "eth_createAccessList",
        "eth_estimateGas",
        "eth_feeHistory",
        "eth_gasPrice",
        "eth_getTransactionByHash",
        "eth_maxPriorityFeePerGas",
        "eth_syncing",
        "net_listening",
        "net_peerCount",
        "txpool_content",
        "txpool_status",
    }
)
_CONSTANT = frozenset({"eth_chainId", "net_version", "web3_sha3"})
_OTHERS = frozenset({"eth_getLogs", "eth_getTransactionReceipt", "eth_protocolVersion", "web3_clientVersion"})

READS = _CONSTANT | _OTHERS | BY_HASH | frozenset(BY_NUMBER) | frozenset(BY_STATE) | FRESH_READS
"""May be sent again when it is not known what became of them, and may go in arrays."""

NEVER_KEPT = re.compile(
    r"eth_(send|sign|submit|new\w*Filter|getFilter|uninstallFilter|(un)?subscribe|getWork|mining|hashrate)|"
    r"(personal|admin|miner|debug_set|engine|evm|hardhat|anvil|wallet|account|clique)_?"
)
"""Writes, signatures, filters and subscriptions, whose answers are of one caller or one connection."""


def policy(extra: Mapping[str, Rule] | None = None, *, finalized: Callable[[], int] = lambda: -1) -> CachePolicy:
    """What may be kept of an Ethereum node's answers. Null never is: the block or receipt is not there yet.

    Args:
        extra: rules for more methods, or others for these.
        finalized: the number of the last block that is known to be final; -1 if none is.

    Raises:
        ValueError: ``extra`` is wrong, or names what must never be kept.
    """
    for method in extra or ():
        if isinstance(method, str) and NEVER_KEPT.match(method):
            raise ValueError(f"{method}: it writes, or its answer is of one connection; it is never kept")
    table: dict[str, Rule] = dict.fromkeys(_CONSTANT | BY_HASH, LONG)
    for method, place in BY_NUMBER.items():
        table[method] = partial(_by_block, place=place, recent=SHORT, finalized=finalized)
    for method, place in BY_STATE.items():
        table[method] = partial(_by_block, place=place, recent=0.0, finalized=finalized)
    table["eth_getLogs"] = partial(_logs, finalized=finalized)
    # Null until it is mined; from then on only a reorganisation changes it.
    table["eth_getTransactionReceipt"] = SHORT
    # They change when the node is upgraded.
    table["eth_protocolVersion"] = table["web3_clientVersion"] = 60.0
    return CachePolicy({**table, **(extra or {})})


def _by_block(params: Any, *, place: int, recent: float, finalized: Callable[[], int]) -> float:
    block = params[place] if isinstance(params, list | tuple) and len(params) > place else None
    if isinstance(block, dict):  # EIP-1898
        if _is_hash(block.get("blockHash")):
            # A canonical one can cease to be so.
            return LONG if block.get("requireCanonical", False) is False else recent
        block = block.get("blockNumber")
    if _is_hash(block):
        return LONG
    number = _number(block)
    if number is None:  # a tag, such as "latest", is another block every time
        return 0.0
    return LONG if number <= finalized() else recent


def _logs(params: Any, *, finalized: Callable[[], int]) -> float:
    wanted = params[0] if isinstance(params, list | tuple) and params else None
    if not isinstance(wanted, dict):
        return 0.0
    if "blockHash" in wanted:
        return LONG if _is_hash(wanted["blockHash"]) else 0.0
    first, last = _number(wanted.get("fromBlock")), _number(wanted.get("toBlock"))
    return LONG if first is not None and last is not None and max(first, last) <= finalized() else 0.0


def _is_hash(block: object) -> bool:
    return isinstance(block, str) and len(block) == 66 and block[:2] in {"0x", "0X"}


def _number(block: object) -> int | None:
    return int(block, 16) if isinstance(block, str) and len(block) < 66 and _QUANTITY.match(block) else None
