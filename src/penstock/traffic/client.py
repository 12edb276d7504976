"""A process that does one job and prints, a JSON object to a line, how far it is and what came of it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from penstock.errors.urls import shown_url
from penstock.traffic.jobs import WORK, LossError
from penstock.traffic.loop import pin, run
from penstock.traffic.measure import Job


def say(**line: Any) -> None:
    """Tell the parent."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def work(job: Job) -> None:
    """Do the job; what goes wrong is told, not raised."""
    try:
        result = await WORK[job.work](job, lambda done: say(progress=done))
    except (OSError, TimeoutError) as exc:
        say(failed=f"{shown_url(job.url)}: {exc or type(exc).__name__}", unreachable=True)
    except LossError as exc:
        say(failed=str(exc), unreachable=False)
    except Exception as exc:  # noqa: BLE001 - the top of this process; the parent reports it
        unreachable = type(exc).__name__ in {"InvalidURI", "InvalidStatus", "InvalidMessage", "InvalidUpgrade"}
        say(failed=f"{shown_url(job.url)}: {type(exc).__name__}: {exc}", unreachable=unreachable)
    else:
        say(result=asdict(result))


def main(job: str, core: str) -> None:
    """``python -m penstock.traffic.client JOB CORE``: a JSON object of `Job`; an empty CORE pins to none."""
    pin(int(core) if core else None)
    run(work(Job(**json.loads(job))))


if __name__ == "__main__":
    main(*sys.argv[1:])
