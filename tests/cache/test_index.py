"""Keys found by how they begin, as by looking at each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.cache import index
from penstock.cache.index import SortedKeys

TEXTS = st.text("ab\U0010ffff", max_size=5)


@given(st.sets(TEXTS), st.lists(TEXTS), TEXTS)
def test_keys_are_found_by_their_beginning(start: set[str], changes: list[str], prefix: str) -> None:
    chunk, index._CHUNK = index._CHUNK, 2
    try:
        keys, found = set(start), SortedKeys(start)
        for key in changes:
            if key in keys:
                keys.remove(key)
                found.remove(key)
            else:
                keys.add(key)
                found.add(key)
            assert found.beginning_with(prefix) == sorted(key for key in keys if key.startswith(prefix))
            assert found.beginning_with("") == sorted(keys)
    finally:
        index._CHUNK = chunk
