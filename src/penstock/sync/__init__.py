"""Penstock for programs without asyncio: the same names, and every call may be made from every thread.

One event loop in one background thread does the work of all. It starts with the first object that is made, and ends
with the last that is closed, or with the program. After a fork the child process has to make objects of its own.
"""

from penstock.sync.connection import Connection, connect
from penstock.sync.lease import PooledConnection
from penstock.sync.middleware import PerformanceMiddleware
from penstock.sync.rpc import Rpc, Subscription

__all__ = ["Connection", "PerformanceMiddleware", "PooledConnection", "Rpc", "Subscription", "connect"]
