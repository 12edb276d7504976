"""Answers that are kept for a while: the tier in this process."""

from __future__ import annotations

import logging
import random as chance
import time
from asyncio import AbstractEventLoop, CancelledError, Future, get_running_loop
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import partial
from threading import RLock
from typing import Any, TypeVar

from penstock.cache.checks import check_bounds, check_ttl
from penstock.cache.entry import CacheEntry, Cause, Dropped, Failure, Node, payload_bytes
from penstock.cache.flight import Flight, Loader, current
from penstock.cache.policy import EvictionPolicy
from penstock.cache.stats import CacheStats
from penstock.cache.store import Store
from penstock.errors import LoadCycle

logger = logging.getLogger("penstock.cache")

T = TypeVar("T")
_NOTHING: Any = object()
