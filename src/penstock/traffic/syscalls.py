"""Counting the system calls of a client process, by tracing it (``ptrace(2)``, Linux).

A process may trace its own children without privileges, unless its container forbids it. Tracing slows the client down
a hundredfold, so counted jobs are short, and never timed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from threading import Lock
from typing import Any

from penstock.traffic.jobs import BEGIN, END
from penstock.traffic.measure import Job

_SEIZE, _INTERRUPT, _SYSCALL, _GET_SYSCALL_INFO = 0x4206, 0x4207, 24, 0x420E
_OPTIONS = 0x1 | 0x100000
"""Tell syscall stops from other traps; let the traced process die with the tracer."""
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_ENTRY = 1


class _Info(ctypes.Structure):
    """``struct ptrace_syscall_info`` up to the arguments of a system call."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


class SyscallCounter:
    """Counts the system calls of one client's main thread."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pid: int | None = None
        self._stopped = False
        self._lock = Lock()
        """Nobody is killed whose number another process may have by now."""

    def per_message(self) -> float | None:
        """System calls for each message of the job; None where tracing is not to be had, or after `stop`.

        Blocks until the job is done.
        """
        if not sys.platform.startswith("linux"):
            return None
        with self._lock:
            if self._stopped:
                return None
            self._pid = pid = _spawn_client(self._job)
        try:
            calls = _count(pid)
        except OSError:
            return None
        finally:
            self.stop()
            with self._lock:
                self._pid = None
                _reap(pid)
        return None if calls is None else calls / self._job.messages

    def stop(self) -> None:
        """Make `per_message` return soon; call it from another thread."""
        with self._lock:
            self._stopped = True
            if self._pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)


def _spawn_client(job: Job) -> int:
    # Not `subprocess`: whenever that looks whether the client has ended, it takes the tracer's notices from it.
    arguments = [sys.executable, "-m", "penstock.traffic.client", json.dumps(asdict(job)), ""]
    actions = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    return os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions, setsid=True)


def _reap(pid: int) -> None:
    """Wait for the end of a process that was killed."""
    with suppress(ChildProcessError):  # the tracer has seen it
        while os.WIFSTOPPED(os.waitpid(pid, 0)[1]):
            pass


def _count(pid: int) -> int | None:
    """System calls between the marks of a job; None if the process ended without them."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    ptrace.restype = ctypes.c_long

    def call(request: int, address: int = 0, data: Any = None) -> None:
        if ptrace(request, pid, address, data) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    call(_SEIZE, 0, _OPTIONS)
    call(_INTERRUPT)
    calls: int | None = None
    for argument in _entries(pid, call):
        if argument == BEGIN:
            calls = 0
        elif argument == END:
            return calls
        elif calls is not None:
            calls += 1
    return None


def _entries(pid: int, call: Callable[..., None]) -> Iterator[int]:
    """The first argument of each system call, as the process makes it, until it ends."""
    info = _Info()
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return
        deliver = 0
        stopped_by = os.WSTOPSIG(status)
        if stopped_by == _SYSCALL_STOP:
            call(_GET_SYSCALL_INFO, ctypes.sizeof(info), ctypes.addressof(info))
            if info.op == _ENTRY:
                yield ctypes.c_int32(info.arguments[0] & 0xFFFFFFFF).value
        elif stopped_by != signal.SIGTRAP:
            deliver = stopped_by
        call(_SYSCALL, 0, deliver)
