"""The published test vectors hold for this implementation too; none has anything in it that is not looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw, Struct, UnsetType

from penstock.wire.compression import Codec
from penstock.wire.envelope import (
    Ack,
    BadFrame,
    Bye,
    Compressed,
    Content,
    Data,
    Frame,
    Hello,
    Part,
    Unknown,
    Welcome,
    pack,
    read,
    unpack,
    write,
)
from penstock.wire.incoming import Incoming
from penstock.wire.limits import Limits
from penstock.wire.outgoing import Outgoing
from penstock.wire.session import Session

FOLDER = Path(__file__).parent.parent / "vectors"


class Case(Struct, forbid_unknown_fields=True, kw_only=True):
    name: str


class Meaning(Case):
    hex: str
    frame: dict[str, Any]
    canonical: bool


class Bounds(Struct, forbid_unknown_fields=True, frozen=True):
    max: int
    window: int
    max_message: int


class Bad(Case):
    close: int
    hex: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    before: list[str] = []
    written: int = 0
    codec: int = 0
    limits: Bounds = Bounds(2**20, 2**20, 2**20)


class Delivery(Case):
    frames: list[str]
    messages: list[dict[str, str]]
    codec: int = 0
    limits: Bounds = Bounds(2**20, 2**20, 2**20)


class Resume(Case):
    sent: list[str]
    acked: int
    received: int
    peer: str
    first: int
    resumes: bool
    replayed: list[str]


class Step(Struct, forbid_unknown_fields=True):
    """Of either end; `expected` tells which keys make one."""

    arrives: str | UnsetType = UNSET
    unread: int | UnsetType = UNSET
    due: bool | UnsetType = UNSET
    resumed: bool | int | UnsetType = UNSET
    says: str | UnsetType = UNSET
    sends: list[dict[str, str]] | UnsetType = UNSET
    writes: list[str] | UnsetType = UNSET
    news: bool | UnsetType = UNSET
    close: int | UnsetType = UNSET

    def keys(self) -> set[str]:
        return {name for name in self.__struct_fields__ if getattr(self, name) is not UNSET}


class Steps(Case):
    window: int
    steps: list[Step]


SHAPES: dict[str, type[Case]] = {
    "frames": Meaning,
    "bad-frames": Bad,
    "deliveries": Delivery,
    "resume": Resume,
    "acknowledging": Steps,
    "sending": Steps,
}


def cases(file: str) -> Any:
    """Every case of a file; it must be of the shape that is known."""
    found = msgspec.json.decode((FOLDER / f"{file}.json").read_bytes(), type=list[SHAPES[file]])  # type: ignore[misc]
    return pytest.mark.parametrize("case", found, ids=[case.name for case in found])


def content(message: dict[str, str]) -> Content:
    ((kind, value),) = message.items()
    return {"text": lambda: value, "binary": lambda: bytes.fromhex(value)}[kind]()  # type: ignore[no-any-return]


def limits(bounds: Bounds) -> Limits:
    return Limits(bounds.max, bounds.window, bounds.max_message)


def session(bounds: Bounds, codec: int) -> Session:
    return Session(limits(bounds), Limits(), Codec(codec) if codec else None)


def numbered(frame: str) -> tuple[Data | Compressed | Part, int]:
    data = bytes.fromhex(frame)
    found = read(data)
    assert isinstance(found, Data | Compressed | Part)
    return found, len(data)


def acknowledgement(frame: str) -> Ack:
    found = read(bytes.fromhex(frame))
    assert isinstance(found, Ack)
    return found


def feed(end: Session, data: str | bytes) -> list[Content]:
    """What a frame brings to the application."""
    match read(data):
        case (Data() | Compressed() | Part()) as frame:
            return end.incoming.receive(frame, len(data))
        case Ack(taken, _) | Bye(_, _, taken):
            end.outgoing.acknowledged(taken)
        case other:
            assert isinstance(other, Unknown)
    return []


def described(frame: Frame, codec: int) -> dict[str, Any]:
    """A frame in the words of frames.json."""
    match frame:
        case Data(seq, messages):
            return {"type": 0, "seq": seq, "messages": described_messages(unpack(messages))}
        case Compressed(seq, count, size, _):
            messages = Incoming(Limits(), Codec(codec)).receive(Compressed(1, count, size, frame.packed), 9)
            found = described_messages(messages)
            return {"type": 1, "seq": seq, "n": count, "raw": size, "codec": codec, "messages": found}
        case Part(seq, flags, piece):
            return {"type": 2, "seq": seq, "flags": flags, "piece": piece.hex()}
        case Ack(taken, want):
            return {"type": 3, "taken": taken, "want": want}
        case Hello():
            names = ("sid", "rx", "first", "max", "window", "codecs", "max_message")
            return {"type": 4, **dict(zip(names, msgspec.to_builtins(frame)[1:], strict=True)), "sid": frame.sid.hex()}
        case Welcome():
            names = ("sid", "status", "rx", "first", "max", "window", "codec", "ttl_ms", "max_message", "node")
            return {"type": 5, **dict(zip(names, msgspec.to_builtins(frame)[1:], strict=True)), "sid": frame.sid.hex()}
        case Bye(code, reason, taken):
            return {"type": 6, "code": code, "reason": reason, "taken": taken}
    raise AssertionError(frame)


def described_messages(messages: list[Content]) -> list[dict[str, str]]:
    return [{"text": it} if isinstance(it, str) else {"binary": it.hex()} for it in messages]


def written(meaning: dict[str, Any]) -> bytes:
    """A frame from the words of frames.json."""
    match meaning:
        case {"type": 0, "seq": seq, "messages": messages}:
            return write(Data(seq, Raw(pack([content(message) for message in messages]))))
        case {"type": 2, "seq": seq, "flags": flags, "piece": piece}:
            return write(Part(seq, flags, bytes.fromhex(piece)))
        case {"type": 3 | 6 as number, **fields}:
            return write((Ack if number == 3 else Bye)(*fields.values()))
        case {"type": 4 | 5 as number, "sid": sid, **fields}:
            return write((Hello if number == 4 else Welcome)(bytes.fromhex(sid), *fields.values()))
    raise AssertionError(meaning)


def test_every_file_is_looked_at() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"README.md", *(f"{name}.json" for name in SHAPES)}
    about = (FOLDER / "README.md").read_text()
    assert all(f"## {name}.json" in about for name in SHAPES)


@cases("frames")
def test_a_frame_means_what_it_says(case: Meaning) -> None:
    data = bytes.fromhex(case.hex)
    frame = read(data)
    if case.frame["type"] >= 16:
        assert isinstance(frame, Unknown)
        assert case.frame.keys() == {"type"}
    else:
        assert described(frame, case.frame.get("codec", 0)) == case.frame
    if case.canonical:
        assert written(case.frame) == data


@cases("bad-frames")
def test_a_bad_frame_is_refused_with_its_code(case: Bad) -> None:
    end = session(case.limits, case.codec)
    for _ in range(case.written):
        end.outgoing.add(["sent"])
    end.outgoing.due()
    for frame in case.before:
        feed(end, bytes.fromhex(frame))
    assert (case.hex is UNSET) is not (case.text is UNSET)
    with pytest.raises(BadFrame) as caught:
        feed(end, case.text if isinstance(case.text, str) else bytes.fromhex(str(case.hex)))
    assert caught.value.code == case.close


@cases("deliveries")
def test_the_application_gets_its_messages(case: Delivery) -> None:
    end = session(case.limits, case.codec)
    found = [message for frame in case.frames for message in feed(end, bytes.fromhex(frame))]
    assert found == [content(message) for message in case.messages]


@cases("resume")
def test_after_a_break_all_that_is_missing_is_sent_again(case: Resume) -> None:
    end = Session(Limits(), Limits())
    for frame, _ in map(numbered, case.sent):
        if isinstance(frame, Data):
            end.outgoing.add(unpack(frame.messages))
        else:
            assert isinstance(frame, Part)
            end.outgoing.add_part(frame.piece, text=bool(frame.flags & 2), last=bool(frame.flags & 1))
    assert end.outgoing.due() == [bytes.fromhex(frame) for frame in case.sent]
    end.outgoing.acknowledged(case.acked)
    for seq in range(1, case.received + 1):
        end.incoming.receive(Data(seq, Raw(pack(["a"]))), 9)
    peer = read(bytes.fromhex(case.peer))
    assert isinstance(peer, Hello | Welcome)
    assert end.first == case.first
    assert end.may_resume(peer) is case.resumes
    if case.resumes:
        end.resume(peer)
        assert [frame.hex() for frame in end.outgoing.due()] == case.replayed
    else:
        assert case.replayed == []


@cases("acknowledging")
def test_the_peer_is_told_in_time(case: Steps) -> None:
    incoming = Incoming(Limits(window=case.window))
    for step in case.steps:
        keys = step.keys()
        if keys == {"says"}:
            assert write(incoming.ack()).hex() == step.says
            continue
        assert keys in ({"arrives", "unread", "due"}, {"unread", "due"}, {"resumed", "unread", "due"})
        if isinstance(step.arrives, str):
            arrived = read(bytes.fromhex(step.arrives))
            if isinstance(arrived, Ack):
                incoming.wanted(arrived.want)
            else:
                incoming.receive(*numbered(step.arrives))
        elif step.resumed is not UNSET:
            incoming.resumed()
        assert isinstance(step.unread, int)
        assert incoming.left(step.unread) is step.due


@cases("sending")
def test_no_more_is_written_than_may_be(case: Steps) -> None:
    outgoing = Outgoing(Limits(window=case.window))
    for step in case.steps:
        match step:
            case Step(sends=list() as messages) if step.keys() == {"sends"}:
                outgoing.add([content(message) for message in messages])
            case Step(writes=list() as frames) if step.keys() == {"writes"}:
                assert [frame.hex() for frame in outgoing.due()] == frames
            case Step(arrives=str() as frame) if step.keys() == {"arrives", "news"}:
                assert outgoing.acknowledged(acknowledgement(frame).taken) is step.news
            case Step(arrives=str() as frame) if step.keys() == {"arrives", "close"}:
                with pytest.raises(BadFrame) as caught:
                    outgoing.acknowledged(acknowledgement(frame).taken)
                assert caught.value.code == step.close
            case Step(resumed=int() as rx) if step.keys() == {"resumed"}:
                assert outgoing.may_go_on_at(rx)
                outgoing.go_on_at(rx)
            case _:
                raise AssertionError(f"unknown: {step.keys()}")
