"""Snakemake's progress as one line when a job starts, one now and then, one when it ends, or its log's end.

A logger plugin, found by its module name: `PYTHONPATH=workflow/plugins snakemake --logger brief`.
"""

import os
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from logging import LogRecord
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from .heartbeat import Heartbeat
from .progress import read_progress, span

BEAT = 5
"""Seconds between two states of the file that `make status` reads."""
REPORT = 20
"""Seconds that a job runs without a line here."""
HIDDEN = (
    LogEvent.JOB_STARTED,
    LogEvent.RESOURCES_INFO,
    LogEvent.SHELLCMD,
    LogEvent.WORKFLOW_STARTED,
)
CHATTER = (
    "Assuming unrestricted",
    "Building DAG",
    "At least one job",
    "Cleaning up SLURM log",
    "Complete log",
    "Conda environments",
    "Elapsed time",
    "Exiting because",
    "No SLURM account given",
    "No account was given",
    "Provided cores",
    "RuleException",
    "Rules claiming",
    "SLURM run ID",
    "Select jobs",
    "Unable to guess SLURM account",
    "Using shell",
    "Using workflow specific profile",
)
"""How messages start that tell a newcomer nothing."""
CAUSE = re.compile(r"mixgrpo [\w-]+: (error|stopped)|^(\S+ )*\w*(Error|Exception): ")
NO_LOG = ["(no log)"]


@dataclass
class Running:
    """A job at work."""

    message: str
    log: Path | None
    start: float = field(default_factory=time.time)
    reported: float = field(default_factory=time.time)

    def state(self) -> dict[str, Any]:
        """As `make status` shows it."""
        bar = read_progress(self.log) if self.log else None
        return {
            "message": self.message,
            "progress": str(bar or f"running for {span(time.time() - self.start)}"),
            "started": self.start,
            "seconds_left": bar.seconds_left if bar else None,
        }


class LogHandler(LogHandlerBase):
    """Writes to stderr. A rule without a message, which takes no time, gets no line."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.running: dict[int, Running] = {}
        self.finished: list[str] = []
        self.done, self.total = 0, 0
        self.start_time = time.time()
        self.heartbeat = Heartbeat()
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)

    def emit(self, record: LogRecord) -> None:
        """One event of Snakemake."""
        event: Any = getattr(record, "event", None)
        if self.common_settings.dryrun:
            self.say(self.format(record))
        elif event == LogEvent.RUN_INFO:
            self.begin(record)
        elif event == LogEvent.JOB_INFO:
            self.start(record)
        elif event == LogEvent.JOB_FINISHED:
            self.finish(record)
        elif event == LogEvent.PROGRESS:
            self.progress(record)
        elif event == LogEvent.JOB_ERROR:
            self.fail(record)
        elif event not in HIDDEN and not str(record.msg or "").startswith(CHATTER):
            text = self.format(record)
            if text.strip():
                self.say(text)

    def begin(self, record: Any) -> None:
        """Work is planned and starts."""
        self.total = int(record.stats.get("total", 0))
        if not self.watcher.is_alive():
            self.watcher.start()

    def start(self, record: Any) -> None:
        """A job was handed to a core."""
        if record.rule_msg:
            log = Path(record.log[0]) if record.log else None
            self.running[record.jobid] = Running(record.rule_msg, log)
            self.say(f"{clock()}            {record.rule_msg}")

    def finish(self, record: Any) -> None:
        """A job ended well; its line waits for the count that comes next."""
        job = self.running.pop(record.job_id, None)
        if job is not None:
            self.finished.append(f"{job.message}: done in {span(time.time() - job.start)}")

    def progress(self, record: Any) -> None:
        """So many jobs are done."""
        self.done, self.total = record.done, record.total
        for line in self.finished:
            self.say(f"{clock()} {self.count():>9}  {line}")
        self.finished.clear()

    def watch(self) -> None:
        """Until the end: now and then say how far the running jobs are."""
        while not self.ended.wait(BEAT):
            with self.lock or threading.RLock():
                self.beat()

    def beat(self) -> None:
        """Write the state of all jobs down, and a line for each that was silent for long."""
        states = {job_id: job.state() for job_id, job in self.running.items()}
        for job_id, state in states.items():
            job = self.running[job_id]
            if time.time() - job.reported >= REPORT:
                job.reported = time.time()
                self.say(f"{clock()} {self.count():>9}  {job.message}: {state['progress']}")
        self.heartbeat.write(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": self.start_time,
                "done": self.done,
                "total": self.total,
                "jobs": list(states.values()),
            }
        )

    def close(self) -> None:
        """The workflow ended."""
        self.ended.set()
        if self.watcher.is_alive():
            self.watcher.join()
        self.heartbeat.end()
        super().close()

    def count(self) -> str:
        """Jobs done of all."""
        return f"{self.done}/{self.total}"

    def fail(self, record: Any) -> None:
        """A job failed: its own words, which end its log, and where to find all of them."""
        job = self.running.pop(record.jobid, None)
        self.say(f"{clock()}    FAILED  {job.message if job else f'rule {record.rule_name}'}")
        told = False
        for log in map(Path, record.log):  # the job's own; on a cluster then that of its submission
            lines = read(log)
            if not told:
                told = lines != NO_LOG
                self.say("\n".join(f"    {line}" for line in telling(lines)))
            self.say(f"    All of it: {log}")

    def say(self, text: str) -> None:
        """To stderr, at once."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def clock() -> str:
    """Time of day."""
    return time.strftime("%H:%M:%S")


def read(log: Path) -> list[str]:
    """The lines of a log, of a progress bar its last state."""
    try:
        lines = log.read_text(errors="replace").rstrip().split("\n")
    except OSError:
        return NO_LOG
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines]


def telling(lines: list[str], num_lines: int = 20) -> list[str]:
    """The last lines, and above them the first that names a cause: of many processes the others fail later."""
    cause = next((line for line in lines if CAUSE.search(line)), None)
    last = lines[-num_lines:]
    return last if cause is None or cause in last else [cause, "...", *last]
