"""What stands in place of a connection, where a loan has none: whatever it is asked for, it says why."""

from __future__ import annotations

from typing import Any, NoReturn

from penstock.errors import LeaseReturned


class _NotLent:
    """In place of the connection before it was lent."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(
            "no connection yet: write `conn = await ...` where you ask for it, or `async with ... as conn`"
        )


class _Returned:
    """In place of the connection, once it was returned."""

    def __getattr__(self, name: str) -> NoReturn:
        raise LeaseReturned


NOT_LENT: Any = _NotLent()
RETURNED: Any = _Returned()
REPLACING: Any = _Returned()
"""In place of a connection that was returned for another, as long as there is none."""
