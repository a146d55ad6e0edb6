"""Locks between processes, also of other machines: who holds one is said, and waiting for it can be interrupted."""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mixgrpo.errors import UserError

PAUSE = 0.5
"""Seconds between two attempts."""


class Lock:
    """An advisory lock (flock) on a file that stays: were it removed, two processes could each hold one of its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def take(self) -> bool:
        """Take it if nobody holds it, and write into the file who has it.

        Never blocks: a blocking flock goes on after a signal whose handler only sets a flag. UserError where the
        file system has no locks.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except OSError as error:
            file.close()
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            raise UserError(
                f"{self.path}: this file system has no locks ({error}), so two jobs could write the same files. "
                "Mount it with them (Lustre: -o flock; NFS: version 4), or run where there are."
            ) from None
        file.truncate(0)
        file.write(f"{this_process()}\n")
        file.flush()
        self._file = file
        return True

    def holder(self) -> str:
        """Who took it last, in words."""
        try:
            return self.path.read_text().strip() or "another process"
        except OSError:
            return "another process"

    def release(self) -> None:
        """Let the next one have it."""
        if self._file is not None:
            self._file.close()
            self._file = None


def this_process() -> str:
    """Where a person finds this process: its Slurm job, machine and number.

    >>> os.environ.pop("SLURM_JOB_ID", None) and None
    >>> this_process() == f"pid {os.getpid()} on {socket.gethostname()}"
    True
    """
    job = os.environ.get("SLURM_JOB_ID")
    return f"{f'job {job}, ' if job else ''}pid {os.getpid()} on {socket.gethostname()}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock for this process; wait, with a word on stderr, while another one holds it."""
    lock = Lock(path)
    told = False
    while not lock.take():
        if not told:
            sys.stderr.write(f"{path}: {lock.holder()} does this work; waiting for it to end.\n")
            told = True
        time.sleep(PAUSE)
    try:
        yield
    finally:
        lock.release()
