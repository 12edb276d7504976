"""Counting the system calls of a client process, by tracing it (``ptrace(2)``, Linux).

A process may trace its own children without privileges, unless its container forbids it. Tracing slows the client down
a hundredfold, so counted jobs are short, and never timed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
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
        self._client: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def per_message(self) -> float | None:
        """System calls for each message of the job; None where tracing is not to be had, or after `stop`.

        Blocks until the job is done.
        """
        if not sys.platform.startswith("linux") or self._stopped:
            return None
        self._client = subprocess.Popen(  # noqa: S603 - this program's own module
            [sys.executable, "-m", "penstock.traffic.client", json.dumps(asdict(self._job)), ""],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            calls = None if self._stopped else _count(self._client.pid)
        except OSError:
            return None
        finally:
            self._client.kill()
            self._client.wait()
        return None if calls is None else calls / self._job.messages

    def stop(self) -> None:
        """Make `per_message` return soon; call it from another thread."""
        self._stopped = True
        if self._client is not None:
            self._client.kill()


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
