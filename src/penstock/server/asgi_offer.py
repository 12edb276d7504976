"""How a client of an ASGI server offers the envelope. Pure."""

from __future__ import annotations

from typing import NamedTuple

from penstock.server.asgi_application import Scope
from penstock.wire.envelope import HEADER, SUBPROTOCOL, VERSION

ASGI_HEADER = (HEADER.lower().encode(), VERSION.encode())


class Offer(NamedTuple):
    """How a client offers the envelope."""

    subprotocol: str | None
    """One of the envelope's; None if it is offered by header."""
    resumes: bool
    """It says that it has a session."""

    @property
    def is_early(self) -> bool:
        """Whether HELLO has to be seen before it is known whether the application is to be asked."""
        return self.resumes or self.subprotocol is not None


def offer_in(scope: Scope) -> Offer | None:
    """What a client offers; the header goes before the subprotocol."""
    for name, value in scope["headers"]:
        if name == ASGI_HEADER[0]:
            version, *parameters = map(str.strip, value.decode("latin-1").split(";"))
            if version == VERSION:
                return Offer(None, any(parameter.startswith("node=") for parameter in parameters))
    subprotocol = next(filter(is_ours, scope.get("subprotocols") or ()), None)
    return None if subprotocol is None else Offer(subprotocol, resumes=False)


def is_ours(subprotocol: str) -> bool:
    return subprotocol == SUBPROTOCOL or subprotocol.startswith(SUBPROTOCOL + "+")


def for_application(scope: Scope) -> Scope:
    """The scope, without the envelope's subprotocols."""
    offered = scope.get("subprotocols") or ()
    if not any(map(is_ours, offered)):
        return scope
    return {**scope, "subprotocols": [name for name in offered if not is_ours(name)]}
