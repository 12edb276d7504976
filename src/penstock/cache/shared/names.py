"""What things are called on the server of the shared tier, and what has changed when one of them has. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import msgspec

from penstock.cache.shared.notes import Change
from penstock.errors import SerializationError
from penstock.wire.depth import check_depth, is_deep

_REMEDY = "keys of a cache with a shared tier are text, bytes, numbers, None, and tuples of these"


class Names:
    """Names on the server, all of which begin alike.

    Behind the prefix follows a letter: ``k`` and a key that is text, ``m`` and another key as msgpack, ``t`` and a tag,
    ``p`` and the beginning of keys; ``g`` is the generation of all entries, ``n`` that of beginnings.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix.encode()
        self._skip = len(self.prefix)
        self.all = self.prefix + b"g"
        self.beginnings = self.prefix + b"n"

    def entry(self, key: Hashable) -> bytes:
        """
        Raises:
            SerializationError: the key means nothing to another process.
        """
        try:
            if isinstance(key, str):
                return self.prefix + b"k" + key.encode()
            packed = msgspec.msgpack.encode(_plain(key))
            if is_deep(packed):  # for some of those who are told of it
                raise RecursionError("nested too deep")
        except (TypeError, ValueError, OverflowError) as error:
            raise SerializationError(f"the key {key!r} cannot be shared: {error}", _REMEDY) from error
        except RecursionError as error:  # which showing the key would raise as well
            raise SerializationError("a key of tuples in tuples is nested too deep to be shared", _REMEDY) from error
        return self.prefix + b"m" + packed

    def tag(self, tag: str) -> bytes:
        return self.prefix + b"t" + tag.encode(errors="surrogatepass")

    def beginning(self, prefix: str) -> bytes:
        return self.prefix + b"p" + prefix.encode(errors="surrogatepass")

    def entries_beginning(self, prefix: str) -> bytes:
        """A pattern for SCAN."""
        start = self.prefix + b"k" + prefix.encode(errors="surrogatepass")
        return b"".join(b"\\" + bytes((one,)) if one in b"*?[]^-\\" else bytes((one,)) for one in start) + b"*"

    def change(self, name: bytes) -> Change | None:
        """What has changed with ``name``; None if it is none of these names."""
        kind, rest = name[self._skip : self._skip + 1], name[self._skip + 1 :]
        try:
            if kind == b"k":
                return Change("key", rest.decode())
            if kind == b"m":
                check_depth(rest)
                return Change("key", _hashable(msgspec.msgpack.decode(rest)))
            if kind == b"t":
                return Change("tag", rest.decode(errors="surrogatepass"))
            if kind == b"p":
                return Change("prefix", rest.decode(errors="surrogatepass"))
        except (ValueError, TypeError, RecursionError):  # somebody else writes there
            return None
        return Change("all") if name == self.all else None


def _plain(key: Any) -> Any:
    """A key such that equal ones become the same bytes."""
    kind = type(key)
    if kind is tuple:
        return tuple(_plain(one) for one in key)
    if kind is bool or (kind is float and key.is_integer()):
        return int(key)
    if kind is int or kind is float or kind is str or kind is bytes or key is None:
        return key
    raise TypeError(f"{kind.__qualname__} is none of these")


def _hashable(key: Any) -> Hashable:
    if isinstance(key, list):
        return tuple(_hashable(one) for one in key)
    hash(key)
    return key  # type: ignore[no-any-return]
