"""Calls over WebSockets: many callers over few connections."""

from penstock.rpc.consumer import Gap, Subscription
from penstock.rpc.graphql import GraphQLRpc
from penstock.rpc.idjson import IdJsonRpc
from penstock.rpc.jsonrpc import Rpc
from penstock.rpc.opening import connect, over
from penstock.rpc.stats import RpcStats

__all__ = ["Gap", "GraphQLRpc", "IdJsonRpc", "Rpc", "RpcStats", "Subscription", "connect", "over"]
