"""Entries as the shared tier keeps them, and the commands that change them. Pure.

An entry is a head, a body and stamps. The head tells the version, the codec, a number that no other entry has, for how
long the value is fresh and then stale, how long the body is, and a checksum of all that. The body is msgpack: the tags
and the value. The stamps are the generations that all entries, and those with each tag, were of when the value began to
be loaded. Whoever invalidates writes another generation, and so need not know which entries there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from struct import Struct
from typing import Any, TypeAlias
from zlib import crc32

import msgspec

from penstock.cache.shared.notes import Packed
from penstock.errors import SerializationError
from penstock.wire.depth import check_depth, is_deep

VERSION = 1
GRACE = 60.0
"""Seconds for which a deleted key is known to be so. A load that takes longer is not kept."""
LIFE = 7 * 86_400.0
"""Seconds after which generations end, and with them the entries that were stamped with them."""
_LONGEST = 1e10
_MAGIC = b"ps"
_GONE, _MSGPACK = 0, 1
_HEAD = Struct(">2sBB8sQQII")
_SUMMED = _HEAD.size - 4

Command: TypeAlias = tuple[bytes | str | int, ...]

_PUT = f"""
local had = {{}}
for i = 1, #KEYS do
  local value = redis.pcall('GET', KEYS[i])
  if type(value) ~= 'string' then value = '' end
  if i == 1 then value = string.sub(value, 1, {_HEAD.size}) end
  if ARGV[4] and value ~= ARGV[3 + i] then return 0 end
  had[i] = value
end
local entry, made = ARGV[1], 0
for i = 3, #KEYS do
  if had[i] == '' then
    had[i], made = ARGV[3], made + 1
    redis.call('SET', KEYS[i], had[i], 'PX', {round(LIFE * 1000)})
  end
  entry = entry .. had[i]
end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], entry) else redis.call('SET', KEYS[1], entry, 'PX', ARGV[2]) end
return 1 + made
"""
"""KEYS: the entry, the generation of beginnings, that of all, those of its tags. ARGV: head and body, milliseconds or
0, a new generation for those that have none, and for each of KEYS what it must still have: nothing is stored otherwise,
and the answer is 0. Else it is 1, and how many generations were begun.
"""


class EntryDamaged(ValueError):  # noqa: N818 - as those of penstock.errors
    """What was found is no entry of this version."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry that was found."""

    value: Any
    tags: tuple[str, ...]
    left: float
    """Seconds for which it is still fresh; below 0 if it is stale."""
    stamps: bytes


class Packer:
    """Values to bytes and back.

    Args:
        value_type: what values are, as `msgspec` understands it. ``Any`` takes None, booleans, numbers, text, bytes,
            and lists and dictionaries of these, which come back as they were.
    """

    def __init__(self, value_type: Any = Any) -> None:
        self._checks = value_type is Any
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(tuple[tuple[str, ...], value_type])

    def pack(self, value: Any, ttl: float, stale_ttl: float, tags: tuple[str, ...], number: bytes) -> Packed:
        """
        Args:
            number: 8 bytes that no other entry has.

        Raises:
            SerializationError: another process would not get the value back as it is.
        """
        try:
            if self._checks:
                _check(value)
            body = self._encoder.encode((tags, value))
            if is_deep(body):  # for some of those who may read it
                raise RecursionError("nested too deep")
            if not self._checks:
                self._decoder.decode(body)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            what = f"a value of type {type(value).__qualname__} cannot be shared: {error}"
            raise SerializationError(what, "set value_type of SharedTier to what the cache holds") from error
        ttl_ms, stale_ms = _milliseconds(ttl), _milliseconds(min(stale_ttl, LIFE))
        head = _HEAD.pack(_MAGIC, VERSION, _MSGPACK, number, ttl_ms, stale_ms, len(body), 0)[:_SUMMED]
        checksum = crc32(body, crc32(head)).to_bytes(4, "big")
        return Packed(head + checksum + body, ttl_ms + stale_ms if ttl_ms else 0)

    def unpack(self, raw: bytes, left_ms: int) -> Kept | None:
        """What an entry holds; None if its key was deleted.

        Args:
            left_ms: what the server says to PTTL.

        Raises:
            EntryDamaged: it is none, or not as it was written.
        """
        if len(raw) < _HEAD.size:
            raise EntryDamaged("shorter than a head")
        magic, version, codec, _, ttl_ms, stale_ms, length, checksum = _HEAD.unpack_from(raw)
        if magic != _MAGIC or version != VERSION or codec not in (_GONE, _MSGPACK):
            raise EntryDamaged("of another kind or version")
        end = _HEAD.size + length
        body = raw[_HEAD.size : end]
        if len(body) < length or crc32(body, crc32(raw[:_SUMMED])) != checksum:
            raise EntryDamaged("its checksum is wrong")
        if codec == _GONE:
            return None
        if left_ms < 0 and ttl_ms:
            raise EntryDamaged("its time is unlimited")
        try:
            check_depth(body)
            tags, value = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise EntryDamaged(str(error)) from error
        left = min(ttl_ms, left_ms - stale_ms) / 1000 if ttl_ms else inf
        return Kept(value, tags, left, raw[end:])


def head(raw: bytes) -> bytes:
    """What tells one entry from another."""
    return raw[: _HEAD.size]


def first_bytes(name: bytes) -> Command:
    """What is `head` of what there is."""
    return ("GETRANGE", name, 0, _HEAD.size - 1)


def put(names: Sequence[bytes], packed: Packed, generation: bytes, expected: Sequence[bytes] = ()) -> Command:
    """Store an entry; with ``expected``, only if each of the names still has that."""
    return ("EVAL", _PUT, len(names), *names, packed.content, packed.lasts_ms, generation, *expected)


def delete(name: bytes, number: bytes) -> Command:
    """Note that a key was deleted: who loads it just now finds that it was, and all processes are told."""
    start = _HEAD.pack(_MAGIC, VERSION, _GONE, number, 0, 0, 0, 0)[:_SUMMED]
    return ("SET", name, start + crc32(start).to_bytes(4, "big"), "PX", round(GRACE * 1000))


def renew(name: bytes, generation: bytes) -> Command:
    """Begin another generation."""
    return ("SET", name, generation, "PX", round(LIFE * 1000))


def _milliseconds(seconds: float) -> int:
    """0 for ever, which is more than a server can count."""
    return 0 if not seconds or seconds > _LONGEST else max(1, round(seconds * 1000))


_SIMPLE = frozenset({type(None), bool, int, float, str, bytes})


def _check(value: Any) -> None:
    """Raise TypeError where msgpack would give back something else than what it was given."""
    todo = [value]
    while todo:
        one = todo.pop()
        kind = type(one)
        if kind in _SIMPLE:
            continue
        if kind is list:
            todo += one
        elif kind is dict:
            if not all(type(key) in _SIMPLE for key in one):
                raise TypeError("a dictionary has a key that is a container or an object")
            todo += one.values()
        else:
            raise TypeError(f"{kind.__qualname__} would come back as something else")
