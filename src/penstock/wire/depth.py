"""How deep what comes from elsewhere may be nested, and how deep msgpack is. Pure.

What decodes it calls itself for each array and map in another one, and stops at the interpreter's recursion limit.
Libraries there are, such as some for Ethereum, that raise it so far that the stack ends first, and with it the process.
"""

from __future__ import annotations

from sys import getrecursionlimit

MAX_DEPTH = 500
"""Containers within each other that are read where the interpreter would not stop before its stack ends."""
TRUSTED_LIMIT = 10_000
"""A recursion limit at which it does."""

_ALONE = (0, 0, 0, 0)
_SHAPES = [
    *128 * [_ALONE],  # small numbers
    *((0, number, 0, 2) for number in range(16)),  # maps
    *((0, number, 0, 1) for number in range(16)),  # arrays
    *((0, number, 0, 0) for number in range(32)),  # text
    *4 * [_ALONE],  # nil, false and true
    *((width, 0, 0, 0) for width in (1, 2, 4)),  # binary
    *((width, 0, 1, 0) for width in (1, 2, 4)),  # extensions
    *((0, size, 0, 0) for size in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8)),  # numbers
    *((0, size, 1, 0) for size in (1, 2, 4, 8, 16)),  # extensions
    *((width, 0, 0, 0) for width in (1, 2, 4)),  # text
    *((width, 0, 0, 1) for width in (2, 4)),  # arrays
    *((width, 0, 0, 2) for width in (2, 4)),  # maps
    *32 * [_ALONE],  # small numbers below 0
]
"""By the first byte of an item: in how many bytes a number follows, or 0, and the number; how many bytes follow beside
it; and how many items it counts by one, or 0 if it counts bytes."""
_NO_CONTAINERS = bytes(first for first, shape in enumerate(_SHAPES) if not shape[-1])


def check_depth(packed: bytes | memoryview) -> None:
    """Raise RecursionError for msgpack whose depth would end the process."""
    if getrecursionlimit() > TRUSTED_LIMIT and is_deep(bytes(packed)):
        raise RecursionError("nested too deep")


def is_deep(packed: bytes) -> bool:
    """Whether msgpack is deeper than `MAX_DEPTH`, as far as it is any; looks at each item, and makes none."""
    if len(packed) <= MAX_DEPTH or len(packed.translate(None, _NO_CONTAINERS)) <= MAX_DEPTH:
        return False
    at, left = 0, 1
    outer: list[int] = []
    """How many items are still to come in each container around the present one, where `left` are."""
    while at < len(packed):
        while not left:
            if not outer:
                return False
            left = outer.pop()
        left -= 1
        width, number, rest, items = _SHAPES[packed[at]]
        at += 1
        if width:
            number = int.from_bytes(packed[at : at + width])
            at += width
        if not items:
            at += number + rest
        elif len(outer) == MAX_DEPTH:
            return True
        else:
            outer.append(left)
            left = items * number
    return False
