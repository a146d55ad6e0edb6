"""Ending a training early without losing any of it, and waiting for another job that trains the same.

A cluster says by SIGTERM that a job is about to end: before its time limit, when it is preempted, requeued or
cancelled. All processes then stop after the same iteration, and the next job goes on from the checkpoint.
"""

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Self

from mixgrpo.errors import Stopped
from mixgrpo.locks import PAUSE, Lock
from mixgrpo.training.distributed import Distributed


class StopSignal:
    """Whether this process was asked to end. Listens to SIGTERM inside a `with` block of the main thread."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        # Not through sys.stderr, which may be in the middle of a write.
        os.write(2, b"SIGTERM: stopping after this iteration.\n")


def wait_for_lock(lock: Lock, distributed: Distributed, stop: StopSignal) -> None:
    """Return once the main process holds the lock; Stopped when SIGTERM comes first.

    All processes take part in each attempt: left alone in a collective they would give up after its time-out,
    and the job that holds the lock may take hours.
    """
    told = False
    while not distributed.any(distributed.is_main and lock.take()):
        if distributed.any(stop.came):
            raise Stopped(f"stopped by SIGTERM while waiting for {lock.holder()}.")
        if distributed.is_main and not told:
            sys.stderr.write(f"Waiting for {lock.holder()}, which trains this run.\n")
            told = True
        time.sleep(PAUSE)
