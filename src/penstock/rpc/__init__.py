"""Calls over WebSockets: many callers over few connections."""

from penstock.rpc.client import Rpc
from penstock.rpc.consumer import Gap, Subscription
from penstock.rpc.opening import connect

__all__ = ["Gap", "Rpc", "Subscription", "connect"]
