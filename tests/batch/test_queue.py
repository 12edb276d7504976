"""What leaves when and in which order, with time as an argument."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock import BatchConfig, Message, Priority
from penstock.batch.entry import CLOSED, DELIVERED, EXPIRED, OVERFLOW, Entry, settle_all
from penstock.batch.queue import BatchQueue
from penstock.batch.recent import RecentContents

CONFIG = BatchConfig(batch_size=3, batch_bytes=100, batch_timeout=1.0, max_pending_messages=5, max_pending_bytes=200)


def entry(data: str | bytes = "x", level: int = Priority.NORMAL, key: str | None = None, **fields: Any) -> Entry:
    return Entry(Message(data), fields.pop("size", len(data)), level, key, **fields)


def filled(*entries: Entry, config: BatchConfig = CONFIG, now: float = 0.0, **settings: Any) -> BatchQueue:
    queue = BatchQueue(config, **settings)
    for one in entries:
        queue.add(one, now)
    return queue


def data_of(entries: list[Entry]) -> list[str | bytes]:
    return [one.message if isinstance(one.message, str) else one.message.data for one in entries]


def test_case_1_a_full_batch_is_due_at_once() -> None:
    assert filled(entry(), entry()).due(0.5) is None
    assert filled(entry(), entry(), entry()).due(0.5) == "size"
    assert filled(entry(size=60), entry(size=40)).due(0.5) == "bytes"


def test_case_2_a_lone_message_is_due_when_the_oldest_has_waited() -> None:
    queue = filled(entry())
    queue.add(entry(), 0.9)
    assert queue.due_at() == 1.0
    assert queue.due(0.999) is None
    assert queue.due(1.0) == "time"


def test_without_timeout_whatever_there_is_is_due() -> None:
    queue = BatchQueue(BatchConfig())
    assert queue.due(0.0) is None
    queue.add(entry(), 0.0)
    assert queue.due(0.0) == "tick"


def test_a_queue_that_closes_or_is_flushed_is_due() -> None:
    queue = filled(entry("a"))
    queue.flush_until = queue.added
    assert queue.due(0.0) == "manual"
    assert data_of(queue.take(0.0)) == ["a"]
    queue.add(entry("b"), 0.0)
    assert queue.due(0.0) is None
    queue.closing = True
    assert queue.due(0.0) == "close"


def test_an_urgent_message_takes_along_what_is_before_it() -> None:
    queue = filled(entry("a"), entry("b", Priority.URGENT))
    assert queue.due(0.0) == "urgent"
    assert data_of(queue.take(0.0)) == ["a", "b"]


def test_case_22_large_messages_are_due_at_once_and_travel_alone() -> None:
    queue = filled(entry("small"), entry("large", size=150), entry("small too"))
    assert queue.due(0.0) == "size"
    assert [data_of(queue.take(0.0)) for _ in range(3)] == [["small"], ["large"], ["small too"]]
    assert queue.count == queue.size == 0


def test_urgent_messages_go_first_and_each_level_keeps_its_order() -> None:
    queue = filled(
        *(entry(f"{level.name} {n}", level, size=1) for n in range(2) for level in Priority), ordered=True, ageing=9.0
    )
    taken = [data_of(queue.take(0.0)) for _ in range(3)]
    assert taken == [["URGENT 0", "URGENT 1", "HIGH 0"], ["HIGH 1", "NORMAL 0", "NORMAL 1"], ["LOW 0", "LOW 1"]]


def test_a_message_is_not_overtaken_by_one_of_the_next_level_that_comes_an_ageing_later() -> None:
    queue = BatchQueue(CONFIG, ordered=True, ageing=2.0)
    queue.add(entry("old", Priority.LOW), 0.0)
    queue.add(entry("one level, sooner", Priority.NORMAL), 1.9)
    queue.add(entry("one level, later", Priority.NORMAL), 2.1)
    assert data_of(queue.take(3.0)) == ["one level, sooner", "old", "one level, later"]


def test_nobody_starves() -> None:
    queue = BatchQueue(BatchConfig(batch_size=1), ordered=True, ageing=1.0)
    low = entry("low", Priority.LOW)
    queue.add(low, 0.0)
    for step in range(40):
        queue.add(entry(level=Priority.URGENT), step / 10)
        if queue.take(step / 10) == [low]:
            assert step / 10 <= 3.2
            return
    raise AssertionError("it starved")


def test_what_has_expired_is_dropped_instead_of_taken() -> None:
    queue = filled(entry("old", expires_at=1.0), entry("new", expires_at=2.0), entry("for ever"))
    assert data_of(queue.take(1.0)) == ["new", "for ever"]
    assert [data_of(entries) for entries in queue.dropped.values()] == [["old"]]
    assert list(queue.dropped) == [EXPIRED]


def test_case_16_a_batch_of_nothing_but_expired_messages_is_empty() -> None:
    queue = filled(entry(expires_at=1.0), entry(expires_at=1.0))
    assert queue.take(2.0) == []
    assert queue.due(2.0) is None


def test_the_latest_value_takes_the_place_of_the_earlier_one() -> None:
    first, second = entry("1", key="k", expires_at=5.0), entry("22", key="k")
    queue = filled(first, entry("x"), second)
    assert (queue.count, queue.size, queue.conflated) == (2, 3, 1)
    assert data_of(queue.take(9.0)) == ["22", "x"]
    settle_all([first], CLOSED)
    assert second.outcome is CLOSED


def test_a_more_urgent_value_queues_up_among_its_like() -> None:
    first = entry("1", Priority.LOW, key="k")
    queue = filled(first, entry("x"), entry("y", Priority.HIGH), ordered=True)
    second = entry("2", Priority.HIGH, key="k")
    queue.add(second, 0.0)
    assert data_of(queue.take(0.0)) == ["y", "2", "x"]
    settle_all([second], OVERFLOW)
    assert first.outcome is OVERFLOW


def test_who_watches_a_message_is_told_what_becomes_of_its_survivor() -> None:
    told: list[str] = []
    first, second, third = entry("1", key="k"), entry("2", key="k"), entry("3", key="k")
    second.watch(lambda: told.append("second"))
    queue = filled(first)
    first.watch(lambda: told.append("first"))
    first.watch(lambda: told.append("first again"))
    queue.add(second, 0.0)
    queue.add(third, 0.0)
    third.watch(lambda: told.append("third"))
    assert told == []
    settle_all(queue.take(0.0), DELIVERED)
    assert told == ["first", "first again", "second", "third"]
    third.watch(lambda: told.append("late"))
    assert told[-1] == "late"


def test_a_follower_of_what_has_ended_has_ended() -> None:
    told: list[str] = []
    ended, repeat = entry(), entry()
    settle_all([ended], DELIVERED)
    repeat.watch(lambda: told.append("repeat"))
    repeat.follow(ended)
    assert (repeat.outcome, told) == (DELIVERED, ["repeat"])


def test_only_what_has_expired_is_dropped() -> None:
    queue = filled(entry("old", expires_at=1.0), entry("new", expires_at=2.0), entry("for ever"))
    queue.drop_expired(1.0)
    assert data_of(queue.dropped[EXPIRED]) == ["old"]
    assert data_of(queue.take(1.5)) == ["new", "for ever"]


def test_an_urgent_value_hurries_in_any_order() -> None:
    queue = filled(entry("1", key="k"), entry("2", Priority.URGENT, key="k"))
    assert queue.due(0.0) == "urgent"
    assert data_of(queue.take(0.0)) == ["2"]
    assert queue.due(9.0) is None


def test_a_value_needs_no_room_but_for_what_it_grows() -> None:
    queue = filled(entry("1", key="k"), *(entry("x") for _ in range(4)))
    assert not queue.has_room(entry("y"))
    assert queue.has_room(entry("2", key="k"))
    assert queue.has_room(entry("2", key="k", size=196))
    assert not queue.has_room(entry("2", key="k", size=197))


def test_a_key_is_free_once_its_message_is_in_a_batch() -> None:
    queue = filled(entry("1", key="k"))
    taken = queue.take(0.0)
    queue.add(entry("2", key="k"), 0.0)
    assert data_of(taken) == ["1"]
    assert data_of(queue.take(0.0)) == ["2"]


def test_repeats_within_a_batch_follow_the_first() -> None:
    entries = [entry("a"), entry(b"a"), entry("a"), entry("b"), entry("a")]
    queue = filled(*entries, deduplicated=True)
    batch = queue.take(0.0)
    assert data_of(batch) == ["a", b"a", "b"]
    assert data_of(queue.take(0.0)) == ["a"]
    assert queue.deduplicated == 1
    settle_all(batch, CLOSED)
    assert entries[2].outcome is CLOSED
    assert entries[4].outcome is None


def test_the_oldest_of_the_least_urgent_makes_room() -> None:
    queue = filled(entry("h", Priority.HIGH), *(entry(f"n{n}") for n in range(4)), ordered=True)
    assert queue.make_room(entry("new"))
    assert data_of(queue.dropped[OVERFLOW]) == ["n0"]
    queue = filled(*(entry("h", Priority.HIGH) for _ in range(5)), ordered=True)
    assert not queue.make_room(entry("new"))
    assert queue.count == 5


def test_the_oldest_makes_room_in_order_of_arrival() -> None:
    queue = filled(entry("u", Priority.URGENT), *(entry(f"n{n}", size=40) for n in range(4)))
    assert queue.make_room(entry("new", size=100))
    assert data_of(queue.dropped[OVERFLOW]) == ["u", "n0", "n1"]


def test_a_content_is_remembered_for_its_window() -> None:
    recent, first = RecentContents(1.0), entry("a")
    assert recent.find(first, 0.0) is None
    assert recent.find(entry("a"), 0.999) is first
    assert recent.find(entry(b"a"), 0.5) is None
    assert recent.find(entry("a"), 1.0) is None


def test_a_message_that_was_dropped_does_not_make_others_repeats() -> None:
    recent, first = RecentContents(1.0), entry("a")
    recent.find(first, 0.0)
    settle_all([first], EXPIRED)
    assert recent.find(entry("a"), 0.1) is None


def test_no_more_than_65536_contents_are_remembered() -> None:
    recent = RecentContents(1.0)
    for number in range(65_537):
        recent.find(entry(str(number)), 0.0)
    assert recent.find(entry("0"), 0.0) is None
    assert recent.find(entry("65536"), 0.0) is not None


additions = st.lists(
    st.builds(
        entry,
        st.sampled_from(["a", "b", b"a", "ccccc"]),
        st.sampled_from(Priority),
        st.sampled_from([None, None, "k", "l"]),
        expires_at=st.sampled_from([None, None, 3.0, 30.0]),
    )
    | st.just(None),
    max_size=60,
)


@given(additions, st.booleans(), st.booleans(), st.integers(1, 5))
def test_nothing_is_lost_or_doubled_and_levels_keep_their_order(
    steps: list[Entry | None], ordered: bool, deduplicated: bool, batch_size: int
) -> None:
    """A step is a message that comes, or None for a batch that leaves."""
    config = BatchConfig(batch_size=batch_size, batch_bytes=8)
    queue = BatchQueue(config, ordered=ordered, deduplicated=deduplicated, ageing=2.0)
    steps = [
        one if one is None else entry(data_of([one])[0], one.level, one.key, expires_at=one.expires_at) for one in steps
    ]
    added: list[Entry] = []
    taken: list[Entry] = []
    for now, step in enumerate([*steps, *[None] * len(steps)]):
        if step is not None:
            queue.add(step, float(now))
            added.append(step)
            continue
        batch = queue.take(float(now))
        assert len(batch) <= batch_size
        assert len(batch) == 1 or sum(one.size for one in batch) <= 8
        taken += batch
    dropped = [one for entries in queue.dropped.values() for one in entries]
    followers = [one for one in added if one.survivor is not None]
    assert queue.count == queue.size == 0
    assert Counter(map(id, added)) == Counter(map(id, [*taken, *dropped, *followers]))
    assert len(followers) == queue.conflated + queue.deduplicated
    for level in Priority if ordered else [None]:
        numbers = [one.seq for one in taken if level is None or one.level == level]
        assert numbers == sorted(numbers)
    settle_all(taken, DELIVERED)
    settle_all(dropped, EXPIRED)
    assert all(one.outcome is not None for one in followers)


def test_nothing_makes_room_for_a_message_that_there_is_no_room_for_anyway() -> None:
    queue = filled(entry("l", Priority.LOW), entry("h", Priority.HIGH, size=150), ordered=True)
    assert not queue.make_room(entry("new", size=100))
    assert queue.dropped == {}
    assert queue.count == 2


def test_a_value_that_grew_does_not_push_out_the_one_that_it_replaces() -> None:
    old, new = entry("1", key="k", size=100), entry("2", key="k", size=150)
    queue = filled(old, entry("x", size=60), entry("y", size=30))
    assert queue.make_room(new)
    assert data_of(queue.dropped[OVERFLOW]) == ["x"]
    queue.add(new, 0.0)
    assert data_of(queue.take(0.0)) == ["2"]
    assert queue.conflated == 1


def test_it_is_known_when_the_first_message_expires() -> None:
    queue = filled(entry("a", expires_at=5.0), entry("b", expires_at=3.0), entry("c"))
    assert queue.expires_first == 3.0
    queue.drop_expired(2.9)
    assert queue.expires_first == 3.0
    queue.drop_expired(3.0)
    assert queue.expires_first == 5.0
    queue.drop_expired(5.0)
    assert queue.expires_first == float("inf")
    assert data_of(queue.take(5.0)) == ["c"]
    queue = filled(entry("1", key="k"), entry("2", key="k", expires_at=4.0))
    assert queue.expires_first == 4.0


def test_a_content_that_was_dropped_and_came_again_does_not_keep_others_in_mind() -> None:
    recent, first = RecentContents(1.0), entry("a")
    recent.find(first, 0.0)
    recent.find(entry("b"), 0.5)
    settle_all([first], EXPIRED)
    recent.find(entry("a"), 0.9)
    assert recent.find(entry("b"), 1.6) is None
