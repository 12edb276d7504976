"""What the adapters do with clients."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from penstock.rpc.client import Client
from penstock.rpc.consumer import Gap

logger = logging.getLogger("penstock.contrib")

C = TypeVar("C", bound=Client[Any])
N = TypeVar("N")


async def opened(client: C) -> C:
    """The client, with a connection; closed if there is none."""
    try:
        return await client.open()
    except BaseException:
        await client.close()
        raise


def tell(on_gap: Callable[[N, Gap], object] | None, name: N, gap: Gap) -> None:
    """Say that a subscription may have missed events: to the callback, whose failure is logged, or in the log."""
    if on_gap is None:
        logger.warning("the subscription %s may have missed events: %s", name, gap.reason)
        return
    try:
        on_gap(name, gap)
    except Exception:
        logger.exception("on_gap failed")
