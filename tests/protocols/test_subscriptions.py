"""Who gets which events. The numbers are of the cases that the design lists."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from penstock.protocols.feeds import (
    Confirmed,
    Delivered,
    Ended,
    Feed,
    FeedStage,
    Gap,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from penstock.protocols.subscriptions import Subscriptions

LOST = ConnectionError("lost")


def subscribe(subs: Subscriptions, owner: str = "A", params: Any = ("newHeads",), **options: Any) -> Subscription:
    return subs.subscribe("eth_subscribe", params, unsubscribe="eth_unsubscribe", owner=owner, **options)[0]


def opened(subs: Subscriptions, connection: object, given: str, owner: str = "A", **options: Any) -> Subscription:
    subscription = subscribe(subs, owner, **options)
    subs.asked(subscription.feed, connection)
    assert subs.opened(subscription.feed, connection, given) == [Confirmed(subscription)]
    return subscription


def told(outcomes: list[Any]) -> list[tuple[object, bytes]]:
    assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    return [(outcome.subscription.owner, bytes(outcome.payload)) for outcome in outcomes]


def event(number: int = 1) -> Raw:
    return Raw(b'"event %d"' % number)


def test_a_subscription_is_asked_for_then_confirmed_then_delivers() -> None:
    subs = Subscriptions()
    subscription, outcomes = subs.subscribe("eth_subscribe", ["logs"], unsubscribe="eth_unsubscribe", owner="A")
    assert outcomes == [Subscribe(subscription.feed)]
    assert (subscription.feed.method, subscription.feed.params) == ("eth_subscribe", ["logs"])
    subs.asked(subscription.feed, 1)
    assert subs.opened(subscription.feed, 1, "0xup") == [Confirmed(subscription)]
    assert told(subs.received(1, "0xup", event())) == [("A", b'"event 1"')]


def test_ids_are_its_own_and_never_used_twice() -> None:
    subs = Subscriptions()
    ids = [subscribe(subs).id for _ in range(3)]
    assert ids == ["0x1", "0x2", "0x3"]
    for known in ids:
        subs.unsubscribe(subs.find(known, "A"))  # type: ignore[arg-type]
    assert subscribe(subs).id == "0x4"
    assert subscribe(Subscriptions(int)).id == 1


def test_case_11_the_same_id_on_two_connections_is_two_subscriptions() -> None:
    subs = Subscriptions()
    opened(subs, 1, "0x9", "A")
    opened(subs, 2, "0x9", "B")
    assert told(subs.received(1, "0x9", event(1))) == [("A", b'"event 1"')]
    assert told(subs.received(2, "0x9", event(2))) == [("B", b'"event 2"')]
    assert subs.received(3, "0x9", event(3)) == []
    assert subs.stats().unsolicited == 1


def test_case_12_events_before_the_reply_are_kept_and_come_in_order_after_it() -> None:
    subs = Subscriptions()
    first, second = subscribe(subs, "A"), subscribe(subs, "B")
    subs.asked(first.feed, 1)
    subs.asked(second.feed, 1)
    for number, known in enumerate(["x", "y", "x"]):
        assert subs.received(1, known, event(number)) == []
    confirmed, *events = subs.opened(first.feed, 1, "x")
    assert confirmed == Confirmed(first)
    assert told(events) == [("A", b'"event 0"'), ("A", b'"event 2"')]
    assert subs.stats().early == 1
    assert told(subs.opened(second.feed, 1, "y")[1:]) == [("B", b'"event 1"')]
    assert subs.stats().early == 0


def test_case_12_early_events_are_bounded_and_what_was_dropped_is_a_gap() -> None:
    subs = Subscriptions(max_early=2)
    subscription = subscribe(subs)
    subs.asked(subscription.feed, 1)
    for number in range(5):
        subs.received(1, "x", event(number))
    assert (subs.stats().early, subs.stats().early_dropped) == (2, 3)
    confirmed, gap, *events = subs.opened(subscription.feed, 1, "x")
    assert (confirmed, gap) == (Confirmed(subscription), Gap(subscription, "overflow"))
    assert [payload for _, payload in told(events)] == [b'"event 3"', b'"event 4"']
    assert subs.stats().gaps == 1


def test_case_12_early_events_are_bounded_in_bytes() -> None:
    subs = Subscriptions(max_early_bytes=100)
    subs.asked(subscribe(subs).feed, 1)
    subs.received(1, "x", Raw(b"1" * 101))
    assert (subs.stats().early, subs.stats().early_dropped) == (0, 1)


def test_early_events_of_nobody_go_with_the_last_reply() -> None:
    subs = Subscriptions()
    subscription = subscribe(subs)
    subs.asked(subscription.feed, 1)
    subs.received(1, "other", event())
    subs.opened(subscription.feed, 1, "x")
    assert (subs.stats().early, subs.stats().unsolicited) == (0, 1)


def test_case_13_only_its_owner_finds_a_subscription() -> None:
    subs = Subscriptions()
    own = opened(subs, 1, "0x77", "A")
    assert subs.find(own.id, "B") is None
    assert subs.find("0x77", "A") is None  # the server's id is nobody's
    assert subs.find(own.id, "A") is own
    assert Subscriptions(int).find(True, "A") is None
    assert subs.unsubscribe(own) == [Unsubscribe(1, "eth_unsubscribe", "0x77")]
    assert subs.unsubscribe(own) == []
    assert subs.find(own.id, "A") is None


def test_case_13_one_may_leave_what_others_share() -> None:
    subs = Subscriptions()
    first = opened(subs, 1, "x", "A", key="heads")
    second, outcomes = subs.subscribe("s", [], unsubscribe="u", owner="B", key="heads")
    assert outcomes == [Confirmed(second)]
    assert [owner for owner, _ in told(subs.received(1, "x", event()))] == ["A", "B"]
    assert subs.unsubscribe(first) == []
    assert [owner for owner, _ in told(subs.received(1, "x", event()))] == ["B"]
    assert subs.unsubscribe(second) == [Unsubscribe(1, "eth_unsubscribe", "x")]
    again = subscribe(subs, key="heads")
    assert again.feed is not second.feed


def test_case_14_after_a_reconnect_the_id_stays_and_the_gap_is_signalled() -> None:
    subs = Subscriptions()
    subscription = opened(subs, 1, "x")
    assert subs.lost(1, LOST) == [Subscribe(subscription.feed)]
    assert subs.received(1, "x", event()) == []  # of the connection that is gone: no doubles
    subs.asked(subscription.feed, 2)
    subs.received(2, "x2", event(7))
    outcomes = subs.opened(subscription.feed, 2, "x2")
    assert outcomes[0] == Gap(subscription, "reconnected")
    assert told(outcomes[1:]) == [("A", b'"event 7"')]
    assert subs.received(2, "x", event()) == []
    assert subs.find("0x1", "A") is subscription


def test_case_14_who_does_not_resume_ends_with_the_connection() -> None:
    subs = Subscriptions()
    ends = opened(subs, 1, "x", resumes=False)
    assert subs.lost(1, LOST) == [Ended(ends, LOST)]
    assert subs.stats().subscriptions == subs.stats().feeds == 0


def test_case_14_who_shares_ends_or_resumes_by_choice() -> None:
    subs = Subscriptions()
    stays = opened(subs, 1, "x", "A", key="k")
    ends, _ = subs.subscribe("s", [], unsubscribe="u", owner="B", key="k", resumes=False)
    assert subs.lost(1, LOST) == [Ended(ends, LOST), Subscribe(stays.feed)]


def test_case_14_a_subscription_without_reply_is_asked_for_again_and_has_no_gap() -> None:
    subs = Subscriptions()
    subscription = subscribe(subs, resumes=False)
    subs.asked(subscription.feed, 1)
    assert subs.lost(1, LOST) == [Subscribe(subscription.feed)]
    subs.asked(subscription.feed, 2)
    assert subs.opened(subscription.feed, 2, "y") == [Confirmed(subscription)]


def test_case_14_two_breaks_are_one_gap() -> None:
    subs = Subscriptions()
    subscription = opened(subs, 1, "x")
    subs.lost(1, LOST)
    subs.asked(subscription.feed, 2)
    subs.lost(2, LOST)
    subs.asked(subscription.feed, 3)
    assert subs.opened(subscription.feed, 3, "x") == [Gap(subscription, "reconnected")]


def test_who_leaves_before_the_reply_is_unsubscribed_when_it_comes() -> None:
    subs = Subscriptions()
    subscription = subscribe(subs)
    subs.asked(subscription.feed, 1)
    assert subs.unsubscribe(subscription) == []
    subs.received(1, "x", event())
    assert subs.opened(subscription.feed, 1, "x") == [Unsubscribe(1, "eth_unsubscribe", "x")]
    assert subs.received(1, "x", event()) == []
    assert subs.stats().early == 0


def test_what_is_asked_for_though_nobody_wants_it_any_more_is_unsubscribed() -> None:
    subs = Subscriptions()
    subscription = subscribe(subs)
    subs.unsubscribe(subscription)
    subs.asked(subscription.feed, 1)
    assert subs.opened(subscription.feed, 1, "x") == [Unsubscribe(1, "eth_unsubscribe", "x")]


def test_a_reply_after_time_out_is_unsubscribed() -> None:
    subs = Subscriptions()
    subscription = subscribe(subs)
    subs.asked(subscription.feed, 1)
    late = TimeoutError()
    assert subs.refused(subscription.feed, 1, late) == [Ended(subscription, late)]
    assert subs.refused(subscription.feed, 1, late) == []
    assert subs.opened(subscription.feed, 1, "x") == [Unsubscribe(1, "eth_unsubscribe", "x")]


def test_an_id_that_was_given_up_may_be_given_anew() -> None:
    subs = Subscriptions()
    old, new = opened(subs, 1, "x", "A"), subscribe(subs, "B")
    subs.asked(new.feed, 1)
    subs.unsubscribe(old)
    subs.received(1, "x", event(1))  # of the old one
    subs.closed(1, "x")
    subs.received(1, "x", event(2))
    assert told(subs.opened(new.feed, 1, "x")[1:]) == [("B", b'"event 2"')]
    subs.closed(9, "x")


def test_a_server_may_give_equal_subscriptions_one_id() -> None:
    subs = Subscriptions()
    first, second = opened(subs, 1, "x", "A"), opened(subs, 1, "x", "B")
    assert [owner for owner, _ in told(subs.received(1, "x", event()))] == ["A", "B"]
    assert subs.unsubscribe(first) == []  # it would end the other
    gone = subscribe(subs)
    subs.asked(gone.feed, 1)
    subs.unsubscribe(gone)
    assert subs.opened(gone.feed, 1, "x") == []
    assert [owner for owner, _ in told(subs.received(1, "x", event()))] == ["B"]
    assert subs.unsubscribe(second) == [Unsubscribe(1, "eth_unsubscribe", "x")]


def test_the_server_may_end_a_subscription() -> None:
    subs = Subscriptions()
    subscription = opened(subs, 1, "x", key="k")
    assert subs.completed(1, "x") == [Ended(subscription, None)]
    assert subs.completed(1, "x") == subs.completed(5, "x") == subs.lost(5, LOST) == []
    assert subs.unsubscribe(subscription) == []
    assert subs.stats().feeds == 0


class Machine(RuleBasedStateMachine):
    """A server that gives few ids, connections that come and go, and consumers that share and leave."""

    def __init__(self) -> None:
        super().__init__()
        self.subs = Subscriptions(max_early=4)
        self.connections = [1, 2]
        self.alive: list[Subscription] = []
        self.confirmed: set[Subscription] = set()
        self.to_ask: list[Feed] = []
        self.asked: list[tuple[Feed, int]] = []
        self.at_server: dict[tuple[int, str], int] = {}
        """How often each id was given there."""
        self.given = 0
        self.expected: dict[Subscription, list[bytes]] = {}

    def act(self, outcomes: list[Any]) -> None:
        for outcome in outcomes:
            match outcome:
                case Subscribe(feed):
                    self.to_ask.append(feed)
                case Unsubscribe(connection, method, id):
                    assert method == "u"
                    del self.at_server[connection, id]
                    self.subs.closed(connection, id)
                case Confirmed(subscription):
                    assert subscription not in self.confirmed, "confirmed twice"
                    self.confirmed.add(subscription)
                case Delivered(subscription, payload):
                    assert subscription in self.alive, "told after its end"
                    assert subscription in self.confirmed, "told before the reply"
                    self.expected[subscription].append(bytes(payload))
                case Gap(subscription):
                    assert subscription in self.confirmed
                case Ended(subscription):
                    self.alive.remove(subscription)

    @rule(key=st.sampled_from([None, "k"]), resumes=st.booleans(), owner=st.sampled_from("AB"))
    def subscribe(self, key: str | None, resumes: bool, owner: str) -> None:
        subscription, outcomes = self.subs.subscribe("s", [], unsubscribe="u", owner=owner, key=key, resumes=resumes)
        self.alive.append(subscription)
        self.expected[subscription] = []
        self.act(outcomes)

    @precondition(lambda self: self.to_ask)
    @rule(at=st.integers(0, 1))
    def ask(self, at: int) -> None:
        feed = self.to_ask.pop(0)
        if feed.stage is not FeedStage.ENDED:
            self.subs.asked(feed, self.connections[at])
            self.asked.append((feed, self.connections[at]))

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), accepts=st.booleans())
    def reply(self, data: st.DataObject, accepts: bool) -> None:
        feed, connection = self.asked.pop(data.draw(st.integers(0, len(self.asked) - 1)))
        if accepts:
            self.given += 1
            self.at_server[connection, f"id{self.given}"] = 1
            self.act(self.subs.opened(feed, connection, f"id{self.given}"))
        else:
            self.act(self.subs.refused(feed, connection, LOST))

    @precondition(lambda self: self.at_server)
    @rule(data=st.data())
    def event(self, data: st.DataObject) -> None:
        connection, given = data.draw(st.sampled_from(sorted(self.at_server)))
        self.act(self.subs.received(connection, given, Raw(b'"%d"' % self.given)))

    @rule(at=st.integers(0, 1), given=st.sampled_from(["early", "id1"]))
    def event_of_nobody(self, at: int, given: str) -> None:
        if (self.connections[at], given) not in self.at_server:
            assert self.subs.received(self.connections[at], given, Raw(b"1")) == []

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        subscription = data.draw(st.sampled_from(self.alive))
        self.alive.remove(subscription)
        self.act(self.subs.unsubscribe(subscription))

    @rule(at=st.integers(0, 1))
    def lose(self, at: int) -> None:
        lost, self.connections[at] = self.connections[at], max(self.connections) + 1
        self.asked = [(feed, connection) for feed, connection in self.asked if connection != lost]
        self.at_server = {known: 1 for known in self.at_server if known[0] != lost}
        self.act(self.subs.lost(lost, LOST))

    @invariant()
    def nobody_is_forgotten(self) -> None:
        stats = self.subs.stats()
        assert stats.subscriptions == len(self.alive)
        assert stats.feeds == len({subscription.feed for subscription in self.alive})
        assert stats.early <= 4 * len(self.connections)
        for subscription in self.alive:
            feed = subscription.feed
            waits = feed in self.to_ask or feed in [asked for asked, _ in self.asked]
            assert waits or (feed.connection, feed.id) in self.at_server

    @invariant()
    def nothing_is_left_at_the_server_that_nobody_wants(self) -> None:
        wanted = {(subscription.feed.connection, subscription.feed.id) for subscription in self.alive}
        assert set(self.at_server) <= wanted


TestSubscriptions = Machine.TestCase
TestSubscriptions.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
