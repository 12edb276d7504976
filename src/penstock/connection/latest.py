"""What a session tells of its socket, which is the latest that it had."""

from __future__ import annotations

from typing import Any

from penstock.connection.farewell import Farewell
from penstock.transport.base import ConnectionClosed, Request, Response, State, Subprotocol, Transport
from penstock.transport.inbox import Inbox
from penstock.transport.receiver import Receiver
from penstock.wire.envelope import SUBPROTOCOL


class OverSockets(Receiver):
    """The part of `penstock.transport.base.Transport` that is passed on, or only looked up."""

    def __init__(self, inbox: Inbox, inner: Transport) -> None:
        super().__init__(inbox)
        self.loop = inner.loop
        self.id, self.logger, self.close_timeout = inner.id, inner.logger, inner.close_timeout
        self.traffic, self.arrived = inner.traffic, inner.traffic.received
        self._latest = inner
        self.subprotocol: Subprotocol | None = inner_subprotocol(inner.subprotocol)
        """The application's, of the first socket: later ones only go on with it."""
        self._state = State.OPEN
        self._exc: ConnectionClosed | None = None
        self._farewell = Farewell()

    @property
    def state(self) -> State:
        return self._state

    @property
    def request(self) -> Request | None:
        return self._latest.request

    @property
    def response(self) -> Response | None:
        return self._latest.response

    @property
    def latency(self) -> float:
        return self._latest.latency

    @property
    def local_address(self) -> Any:
        return self._latest.local_address

    @property
    def remote_address(self) -> Any:
        return self._latest.remote_address

    @property
    def transport(self) -> Any:
        return self._latest.transport

    @property
    def close_code(self) -> int | None:
        if self._state is not State.CLOSED:
            return None
        rcvd = None if self._exc is None else self._exc.rcvd
        return self._latest.close_code if rcvd is None else int(rcvd.code)

    @property
    def close_reason(self) -> str | None:
        if self._state is not State.CLOSED:
            return None
        rcvd = None if self._exc is None else self._exc.rcvd
        return self._latest.close_reason if rcvd is None else rcvd.reason

    @property
    def close_received(self) -> int | None:
        return None if self._farewell.theirs is None else int(self._farewell.theirs.code)

    @property
    def close_exc(self) -> ConnectionClosed:
        return self._latest.close_exc if self._exc is None else self._exc

    def reject(self, status: int, text: str) -> Response:
        return self._latest.reject(status, text)


def inner_subprotocol(name: Subprotocol | None) -> Subprotocol | None:
    """The application's subprotocol, without the envelope that is offered by the same name."""
    if name is None or not (name == SUBPROTOCOL or name.startswith(SUBPROTOCOL + "+")):
        return name
    return Subprotocol(name.removeprefix(SUBPROTOCOL).removeprefix("+")) or None
