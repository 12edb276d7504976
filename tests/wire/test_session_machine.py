"""Whatever breaks, and when: each message arrives once and in order, or its sender is told that it may not have."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.wire.compression import Codec
from penstock.wire.envelope import RESUMED, Ack, Bye, Compressed, Content, Data, Hello, Part, Welcome, read, write
from penstock.wire.limits import LEAST_FRAME, Limits, limits_of
from penstock.wire.outgoing import REPLAY_BYTES, REPLAY_FRAMES
from penstock.wire.session import Session

MOST_ADDED = 200_000
"""Bytes that one step adds at most, frames and all."""


class Socket:
    """What is under way between two ends, in order; one that has turned away hears no more."""

    def __init__(self, client: End, server: End) -> None:
        self.under_way: dict[End, deque[bytes]] = {client: deque(), server: deque()}
        """By the end that is to receive it."""

    def write(self, to: End, frame: bytes) -> None:
        self.under_way[to].append(frame)


class End:
    """One end, with its application, and no more of a shell than it takes."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.peer: End
        self.socket: Socket | None = None
        self.inbox: deque[Content] = deque()

    def begin(self, codec: Codec | None) -> None:
        """A new session; messages of the last one may still be unread."""
        self.session = Session(self.limits, self.peer.limits, codec, unread=len(self.inbox))
        self.sent: list[Content] = []
        self.received: list[Content] = []
        self.frames: dict[int, bytes] = {}
        """As they were first written."""
        self.in_flight: dict[int, int] = {}
        """Bytes of those that were written to this socket, or have arrived."""
        self.bye: Bye | None = None
        self.peer_bye: Bye | None = None
        self.has_answered = False
        self.fragments: list[bytes] = []

    @property
    def may_send(self) -> bool:
        return self.bye is None and self.peer_bye is None and not self.session.outgoing.is_held_up

    def write(self, frame: bytes) -> None:
        if self.socket is not None:
            self.socket.write(self.peer, frame)

    def write_due(self) -> None:
        if self.socket is None or self.peer_bye is not None:
            return
        for frame in self.session.outgoing.due():
            self.write_numbered(frame)

    def write_numbered(self, frame: bytes) -> None:
        outgoing = self.session.outgoing
        seq = read(frame).seq  # type: ignore[union-attr]
        assert self.frames.setdefault(seq, frame) == frame, "changed by a replay"
        assert len(frame) <= outgoing.theirs.max_frame
        self.in_flight = {number: size for number, size in self.in_flight.items() if number > outgoing.acked}
        assert sum(self.in_flight.values()) < outgoing.theirs.window, "the window is exceeded by more than a frame"
        self.in_flight[seq] = len(frame)
        self.write(frame)

    def tell(self, *, want: int = 0) -> None:
        self.session.incoming.left(len(self.inbox))
        if self.socket is not None:
            self.write(write(self.session.incoming.ack(want)))

    def look(self) -> None:
        """Messages have come, or were taken."""
        if self.session.incoming.left(len(self.inbox)):
            self.tell()
        if not self.inbox and self.peer_bye is not None and self.bye is None:
            self.say_bye()

    def say_bye(self) -> None:
        self.tell()
        self.has_answered = self.peer_bye is not None
        self.bye = Bye(1000, "", self.session.incoming.taken)
        self.write(write(self.bye))

    def taken(self) -> int:
        """Messages of this session that the application has taken."""
        return max(0, len(self.received) - len(self.inbox))

    def take_one(self) -> None:
        self.inbox.popleft()
        self.look()

    def send(self, messages: list[Content]) -> None:
        self.session.outgoing.add(messages)
        self.sent += messages
        self.write_due()

    def send_one(self, message: Content) -> None:
        self.sent.append(message)
        if self.socket is None:
            self.session.outgoing.add([message])
        elif frame := self.session.outgoing.add_one(message):
            self.write_numbered(frame)
        self.write_due()

    def send_piece(self, piece: bytes, *, last: bool) -> None:
        self.fragments.append(piece)
        self.session.outgoing.add_part(piece, text=False, last=last)
        if last:
            self.sent.append(b"".join(self.fragments))
            self.fragments = []
        self.write_due()

    def receive(self, data: bytes) -> None:
        match read(data):
            case (Data() | Compressed() | Part()) as frame:
                messages = self.session.incoming.receive(frame, len(data))
                self.received += messages
                self.inbox += messages
                self.look()
            case Ack(taken, want):
                if self.session.outgoing.acknowledged(taken):
                    self.write_due()
                if want:
                    self.session.incoming.wanted(want)
                    self.look()
            case Bye() as bye if self.peer_bye is None:
                self.session.outgoing.acknowledged(bye.taken)
                self.peer_bye = bye
                self.check_what_may_be_lost()
                self.look()

    def attach(self, socket: Socket, peer: Hello | Welcome) -> None:
        self.session.resume(peer)
        self.socket = socket
        for seq in [seq for seq in self.in_flight if seq > peer.rx]:
            del self.in_flight[seq]
        self.tell()
        self.write_due()
        if self.bye is not None:
            self.write(write(self.bye))

    def check_what_may_be_lost(self) -> list[Content]:
        """What was not acknowledged is the end of what was sent, and has all that the peer has not taken."""
        outgoing = self.session.outgoing
        unacknowledged = outgoing.unacknowledged()
        known = len(self.sent) - len(unacknowledged)
        assert unacknowledged == self.sent[known:]
        assert known <= self.peer.taken()
        return unacknowledged


small = st.integers(0, 3).map(lambda number: ["", b"", "ä", b"x"][number])
medium = st.integers(0, 9000)


class Machine(RuleBasedStateMachine):
    @initialize(
        windows=st.tuples(*[st.sampled_from([1, 100, 5_000, 20_000, 2**20])] * 2),
        codec=st.sampled_from([None, *Codec]),
        frames=st.sampled_from([LEAST_FRAME, 2**20]),
    )
    def begin(self, windows: tuple[int, int], codec: Codec | None, frames: int) -> None:
        self.codec = codec
        self.client, self.server = (End(Limits(max_frame=frames, window=window)) for window in windows)
        self.client.peer, self.server.peer = self.server, self.client
        self.ends = (self.client, self.server)
        self.greeting: Socket | None = None
        """On which the client waits for WELCOME."""
        self.number = 0
        self.begin_sessions()

    def begin_sessions(self) -> None:
        for end in self.ends:
            end.begin(self.codec)
        socket = Socket(self.client, self.server)
        self.greeting = None
        for end in self.ends:
            end.socket = socket

    def next_of(self, kind: Content) -> Content:
        """A message like no other."""
        self.number += 1
        number = str(self.number)
        return number + kind if isinstance(kind, str) else number.encode() + kind

    # Applications

    @rule(who=st.integers(0, 1), batch=st.lists(small, min_size=1, max_size=30), plain=st.booleans())
    def send(self, who: int, batch: list[Content], plain: bool) -> None:
        end = self.ends[who]
        if end.may_send and not end.fragments:
            end.send(batch if plain else [self.next_of(kind) for kind in batch])

    @rule(who=st.integers(0, 1), size=medium, text=st.booleans(), alone=st.booleans())
    def send_large(self, who: int, size: int, text: bool, alone: bool) -> None:
        end = self.ends[who]
        if end.may_send and not end.fragments:
            message = self.next_of("ö" * size if text else b"y" * size)
            if alone:
                end.send_one(message)
            else:
                end.send(["before", message, b"after"])

    @rule(who=st.integers(0, 1), times=st.integers(1, 80))
    def send_much(self, who: int, times: int) -> None:
        end = self.ends[who]
        for _ in range(times):
            if end.may_send and not end.fragments:
                end.send([self.next_of("tick")] * 12)
            else:
                break

    @rule(who=st.integers(0, 1), size=st.sampled_from([0, 1, 4032, 4033, 9000]), last=st.booleans())
    def send_piece(self, who: int, size: int, last: bool) -> None:
        end = self.ends[who]
        if end.may_send:
            end.send_piece(bytes(size), last=last)

    @rule(who=st.integers(0, 1), most=st.integers(1, 40))
    def take(self, who: int, most: int) -> None:
        end = self.ends[who]
        for _ in range(most):
            if end.inbox and end.bye is None:
                end.take_one()

    @rule(who=st.integers(0, 1))
    def wait_for_delivery(self, who: int) -> None:
        end = self.ends[who]
        if end.session.outgoing.acked < end.session.outgoing.tx:
            end.tell(want=end.session.outgoing.tx)

    @rule(who=st.integers(0, 1))
    def some_time_passes(self, who: int) -> None:
        end = self.ends[who]
        incoming = end.session.incoming
        incoming.left(len(end.inbox))
        if incoming.taken > incoming.told:
            end.tell()

    # The network

    @rule(who=st.integers(0, 1), most=st.integers(1, 40))
    def deliver(self, who: int, most: int) -> None:
        end = self.ends[who]
        for _ in range(most):
            if end.socket is None or not end.socket.under_way[end]:
                break
            end.receive(end.socket.under_way[end].popleft())
            if self.end_if(all):
                break

    @precondition(lambda self: self.client.socket is not None)
    @rule(arrives=st.integers(0, 3), noticed=st.booleans())
    def client_breaks(self, arrives: int, noticed: bool) -> None:
        """The client's socket is gone; some of what it wrote may arrive, and the server may not notice."""
        socket = self.client.socket
        assert socket is not None
        self.client.socket = None
        self.cut(socket, self.server, arrives)
        if noticed and self.server.socket is socket:
            self.deliver(1, 3)
            self.server.socket = None
        self.end_if(any)  # what is closed in order is not resumed

    @precondition(lambda self: self.server.socket is not None)
    @rule(arrives=st.integers(0, 3))
    def server_breaks(self, arrives: int) -> None:
        socket = self.server.socket
        assert socket is not None
        self.server.socket = None
        self.cut(socket, self.client, arrives)

    @staticmethod
    def cut(socket: Socket, end: End, arrives: int) -> None:
        """Of what is under way to an end, no more than a beginning arrives."""
        under_way = socket.under_way[end]
        while len(under_way) > arrives:
            under_way.pop()

    @precondition(lambda self: self.client.socket is None and self.greeting is None)
    @rule()
    def say_hello(self) -> None:
        self.greeting = Socket(self.client, self.server)
        session, ours = self.client.session, self.client.limits
        hello = Hello(b"", session.incoming.rx, session.first, ours.max_frame, ours.window, 3, ours.max_message)
        self.greeting.write(self.server, write(hello))

    @precondition(lambda self: self.greeting is not None and self.greeting.under_way[self.server])
    @rule()
    def hello_arrives(self) -> None:
        """The server turns away from the socket that it had, and hears nothing more of what is under way on it."""
        assert self.greeting is not None
        hello = read(self.greeting.under_way[self.server].popleft())
        assert isinstance(hello, Hello)
        server, ours = self.server, self.server.limits
        assert limits_of(hello) == self.client.limits
        assert server.session.may_resume(hello), "nothing that is needed may be gone"
        rx, first = server.session.incoming.rx, server.session.first
        welcome = Welcome(b"", RESUMED, rx, first, ours.max_frame, ours.window, 0, 90_000, ours.max_message, "")
        self.greeting.write(self.client, write(welcome))
        server.attach(self.greeting, hello)

    @precondition(lambda self: self.greeting is not None and self.greeting.under_way[self.client])
    @rule()
    def welcome_arrives(self) -> None:
        assert self.greeting is not None
        welcome = read(self.greeting.under_way[self.client].popleft())
        assert isinstance(welcome, Welcome)
        assert welcome.status == RESUMED
        assert self.client.session.may_resume(welcome), "nothing that is needed may be gone"
        socket, self.greeting = self.greeting, None
        self.client.attach(socket, welcome)

    @precondition(lambda self: self.greeting is not None)
    @rule(noticed=st.booleans())
    def handshake_breaks(self, noticed: bool) -> None:
        """HELLO is lost, or WELCOME is."""
        socket, self.greeting = self.greeting, None
        if noticed and self.server.socket is socket:
            self.server.socket = None

    # The end

    @precondition(lambda self: self.client.socket is None)
    @rule(again=st.booleans(), restarted=st.booleans())
    def server_forgets(self, again: bool, restarted: bool) -> None:
        """It has restarted, or the session has expired: a new one, with what may be lost sent again or not."""
        may_be_lost = self.client.check_what_may_be_lost()
        if not restarted:
            self.server.check_what_may_be_lost()
        self.check_order()
        self.server.inbox.clear()
        self.begin_sessions()
        if again and may_be_lost:
            self.client.send(may_be_lost)

    @rule(who=st.integers(0, 1))
    def say_bye(self, who: int) -> None:
        end = self.ends[who]
        outgoing = end.session.outgoing
        all_written = outgoing.tx == outgoing.acked or outgoing.tx in end.in_flight
        if end.may_send and not end.fragments and end.socket is not None and all_written:
            end.say_bye()

    def end_if(self, how: Callable[[Iterable[bool]], bool]) -> bool:
        """Whether one end, or every one, has said BYE and heard it: then there is another session, later."""
        if not how(end.bye is not None and end.peer_bye is not None for end in self.ends):
            return False
        self.check_order()
        for end in self.ends:
            end.check_what_may_be_lost()
            if end.peer_bye is not None and end.peer.has_answered:
                assert end.session.outgoing.acked == end.session.outgoing.tx
                assert end.peer.taken() == len(end.sent)
        for end in self.ends:
            end.inbox.clear()
        self.begin_sessions()
        return True

    # What always holds

    def check_order(self) -> None:
        for end in self.ends:
            assert end.received == end.peer.sent[: len(end.received)], "not once, or not in order"

    @invariant()
    def everything_arrives_once_and_in_order(self) -> None:
        if hasattr(self, "ends"):
            self.check_order()

    @invariant()
    def numbers_follow_each_other(self) -> None:
        for end in getattr(self, "ends", ()):
            incoming, theirs = end.session.incoming, end.peer.session.outgoing
            assert theirs.acked <= incoming.told <= incoming.taken <= incoming.rx <= theirs.tx

    @invariant()
    def no_more_is_kept_than_was_not_acknowledged(self) -> None:
        for end in getattr(self, "ends", ()):
            outgoing = end.session.outgoing
            assert outgoing.kept_bytes <= REPLAY_BYTES + MOST_ADDED
            assert outgoing.tx - outgoing.acked <= REPLAY_FRAMES + 80
            if outgoing.acked == outgoing.tx and not end.fragments:
                assert outgoing.kept_bytes == 0

    def teardown(self) -> None:
        """Let everything come to its end: all arrives, and every end knows."""
        if not hasattr(self, "ends"):
            return
        for end in self.ends:
            if end.fragments:
                end.send_piece(b"", last=True)
        for _ in range(10_000):
            self.reconnect()
            for who in range(2):
                self.deliver(who, 1000)
                self.take(who, 1000)
                self.some_time_passes(who)
            if not any(end.inbox or (end.socket and end.socket.under_way[end]) for end in self.ends):
                break
        for end in self.ends:
            assert end.received == end.peer.sent
            assert not end.inbox
            assert end.session.outgoing.acked == end.session.outgoing.tx
            assert end.session.outgoing.unacknowledged() == []
            assert end.session.outgoing.kept_bytes == 0

    def reconnect(self) -> None:
        if self.client.socket is not None and self.client.socket is self.server.socket:
            return
        self.client.socket = self.greeting = None
        if not self.end_if(any):
            self.say_hello()
            self.hello_arrives()
            self.welcome_arrives()


TestSession = Machine.TestCase
TestSession.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)


@pytest.mark.load
@pytest.mark.timeout(900)
def test_many_more_breaks() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine, settings=settings(max_examples=3000, stateful_step_count=100, deadline=None)
    )
