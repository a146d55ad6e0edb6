"""The jobs that a dry run would run, a line of JSON each on stdout: what mixgrpo/planning/staleness.py reads.

A logger plugin, found by its module name: `PYTHONPATH=workflow/plugins snakemake -n --logger jobs`.
"""

import json
import logging
import sys
from logging import LogRecord
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent


class LogHandler(LogHandlerBase):
    """Writes jobs to stdout and errors to stderr; the rest is silence."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = True
    has_formatter = False
    needs_rulegraph = False

    def emit(self, record: LogRecord) -> None:
        """One event of Snakemake."""
        if getattr(record, "event", None) == LogEvent.JOB_INFO:
            sys.stdout.write(f"{json.dumps(job(record))}\n")
            sys.stdout.flush()
        elif record.levelno >= logging.ERROR:
            sys.stderr.write(f"{self.format(record)}\n")


def job(record: Any) -> dict[str, Any]:
    """What is told of a job. A rule without a message takes no time: it writes a plan down."""
    return {
        "rule": record.rule_name,
        "wildcards": dict(record.wildcards or {}),
        "input": list(record.input or []),
        "output": list(record.output or []),
        "reason": record.reason,
        "message": record.rule_msg,
        "benchmark": getattr(record, "benchmark", None),
        "threads": record.threads,
        "resources": dict(record.resources.items()),
    }
