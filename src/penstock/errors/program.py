"""What a program does wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from penstock.errors.root import PerformanceError


class ConfigProblem(NamedTuple):
    """One thing that is wrong with a configuration."""

    path: str
    """The field, as ``pool.max_connections``; empty if it concerns none."""
    value: str
    """As it was given, less the secrets of URLs; empty if there is none, or the field is unknown."""
    what: str
    """What is wrong, with the bound."""
    origin: str
    """Where it was given: the file and its key, the variable, or ``argument``."""
    nearest: str = ""
    """The valid name nearest to an unknown one."""

    def __str__(self) -> str:
        if not self.path:
            return f"{self.origin} {self.what}"
        subject = f"{self.path}={self.value}: " if self.value else f"{self.path}: "
        remedy = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{subject}{self.what}{remedy} ({self.origin})"


class ConfigError(PerformanceError, ValueError):
    """The configuration cannot be used; ``problems`` are all that is wrong with it."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        super().__init__(problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        return "\n  ".join((f"{len(self.problems)} problems:", *map(str, self.problems)))


class WrongLoop(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """A connection belongs to the event loop, and so to the thread, that opened it; pools and batchers to their first.

    None of them belongs to a child process.
    """

    def __init__(self, what: str = "connection", call: str = "conn.send(...)") -> None:
        super().__init__(what, call)
        self.what, self.call = what, call

    def __str__(self) -> str:
        return (
            f"this {self.what} belongs to another event loop or thread, or to the parent process; "
            f"call it there, from other threads with asyncio.run_coroutine_threadsafe({self.call}, loop), "
            "or make another after a fork"
        )


class BlockingCall(WrongLoop):
    """A call of `penstock.sync` from a thread in which an event loop runs: it would stand still."""

    def __init__(self, call: str) -> None:
        super().__init__("object", call)
        self.args = (call,)  # the arguments themselves, so that it pickles

    def __str__(self) -> str:
        return (
            f"penstock.sync's {self.call} waits, and would block the event loop that runs in this thread; "
            "use the same of penstock there, or asyncio.to_thread"
        )


class InheritedByFork(WrongLoop):
    """An object of `penstock.sync` that belongs to the parent process was used in a child process."""

    def __init__(self, call: str) -> None:
        super().__init__("object", call)
        self.args = (call,)  # the arguments themselves, so that it pickles

    def __str__(self) -> str:
        return f"{self.call} was called on an object of the parent process, whose sockets are not ours; make another"


class LoopEnded(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """The background event loop of `penstock.sync` has ended: what called was closed, or the interpreter exits."""

    def __init__(self, call: str) -> None:
        super().__init__(call)
        self.call = call

    def __str__(self) -> str:
        return f"{self.call} has ended with the event loop behind it: it was closed, or the program exits; make another"


class WaitTimeout(PerformanceError, TimeoutError):  # noqa: N818 - as its siblings
    """A call of `penstock.sync` took too long, and was cancelled. ``timeout`` is seconds.

    ``accepted``: messages of this call that were accepted for sending before; the others were not sent.
    """

    def __init__(self, call: str, timeout: float, accepted: int = 0) -> None:
        super().__init__(call, timeout, accepted)
        self.call, self.timeout, self.accepted = call, timeout, accepted

    def __str__(self) -> str:
        accepted = f", after {self.accepted} messages were accepted" if self.accepted else ""
        return (
            f"{self.call} took longer than {self.timeout:g} s, and was cancelled{accepted}; "
            "raise timeout, or look at the server"
        )
