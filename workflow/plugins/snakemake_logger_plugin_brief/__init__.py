"""Snakemake's progress as one line when a job starts and one when it ends, with the log's end if it fails.

A logger plugin, found by its module name: `PYTHONPATH=workflow/plugins snakemake --logger brief`.
"""

import sys
import time
from logging import LogRecord
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

HIDDEN = (
    LogEvent.JOB_STARTED,
    LogEvent.RESOURCES_INFO,
    LogEvent.RUN_INFO,
    LogEvent.SHELLCMD,
    LogEvent.WORKFLOW_STARTED,
)
CHATTER = (
    "Assuming unrestricted",
    "Building DAG",
    "At least one job",
    "Complete log",
    "Conda environments",
    "Elapsed time",
    "Exiting because",
    "Provided cores",
    "RuleException",
    "Rules claiming",
    "Select jobs",
    "Using shell",
)
"""How messages start that tell a newcomer nothing."""


class LogHandler(LogHandlerBase):
    """Writes to stderr. A rule without a message, which takes no time, gets no line."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.running: dict[int, tuple[str, float]] = {}
        self.finished: list[str] = []

    def emit(self, record: LogRecord) -> None:
        """One event of Snakemake."""
        event: Any = getattr(record, "event", None)
        if self.common_settings.dryrun:
            self.say(self.format(record))
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

    def start(self, record: Any) -> None:
        """A job was handed to a core."""
        if record.rule_msg:
            self.running[record.jobid] = (record.rule_msg, time.monotonic())
            self.say(f"{clock()}            {record.rule_msg}")

    def finish(self, record: Any) -> None:
        """A job ended well; its line waits for the count that comes next."""
        if record.job_id in self.running:
            message, start = self.running.pop(record.job_id)
            self.finished.append(f"{message}: done in {round(time.monotonic() - start)} s")

    def progress(self, record: Any) -> None:
        """So many jobs are done."""
        for line in self.finished:
            self.say(f"{clock()} {f'{record.done}/{record.total}':>9}  {line}")
        self.finished.clear()

    def fail(self, record: Any) -> None:
        """A job failed: its own words, which end its log, and where to find all of them."""
        message, _ = self.running.pop(record.jobid, (f"rule {record.rule_name}", 0.0))
        self.say(f"{clock()}    FAILED  {message}")
        for log in record.log:
            self.say("\n".join(f"    {line}" for line in tail(Path(log))))
            self.say(f"    All of it: {log}")

    def say(self, text: str) -> None:
        """To stderr, at once."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def clock() -> str:
    """Time of day."""
    return time.strftime("%H:%M:%S")


def tail(log: Path, num_lines: int = 20) -> list[str]:
    """The last lines of a log, of a progress bar its last state."""
    try:
        lines = log.read_text(errors="replace").rstrip().split("\n")
    except OSError:
        return ["(no log)"]
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines[-num_lines:]]
