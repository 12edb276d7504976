"""Text in parts is decoded as far as its characters are complete."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.transport.text import TextDecoder


@given(st.text(), st.lists(st.integers(0, 1 << 10), max_size=6))
def test_text_is_the_same_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    decoder = TextDecoder(text=True)
    pieces = [decoder.decode(data[start:end], False) for start, end in pairwise(edges)]
    assert "".join([*map(str, pieces), str(decoder.decode(b"", True))]) == text


def test_a_character_appears_when_its_last_byte_has_come() -> None:
    decoder = TextDecoder(text=True)
    euro = "\N{EURO SIGN}".encode()
    assert decoder.decode(euro[:1], False) == ""
    assert decoder.decode(euro[1:2], False) == ""
    assert decoder.decode(euro[2:], True) == "\N{EURO SIGN}"


@pytest.mark.parametrize("data", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80"])
def test_what_is_not_utf_8_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        TextDecoder(text=True).decode(data, False)


def test_text_that_ends_within_a_character_is_refused() -> None:
    decoder = TextDecoder(text=True)
    assert decoder.decode(b"ab\xe2\x82", False) == "ab"
    with pytest.raises(UnicodeDecodeError):
        decoder.decode(b"", True)


def test_bytes_pass_as_they_are() -> None:
    decoder = TextDecoder(text=False)
    assert decoder.decode(b"\xff\xe2", False) == b"\xff\xe2"
    assert decoder.decode(b"", True) == b""
