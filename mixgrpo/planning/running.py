"""What runs now, from the files that workflows keep while they run: logs/running/{host}-{pid}.json.

workflow/plugins/snakemake_logger_plugin_brief/heartbeat.py writes them.
"""

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path("logs/running")
SILENT = 60
"""Seconds after which a workflow that writes every 5 is taken for dead."""


@dataclass(frozen=True)
class Workflow:
    """A Snakemake at work, or what a killed one left."""

    state: dict[str, Any]
    seconds_ago: float
    """When it was last heard of."""

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; on another machine, whether it spoke of late."""
        if self.state["host"] == socket.gethostname():
            return process_exists(self.state["pid"])
        return self.seconds_ago < SILENT

    def lines(self) -> list[str]:
        """In words, a line for each job."""
        done, total = self.state["done"], self.state["total"]
        since = time.strftime("%H:%M", time.localtime(self.state["started"]))
        lines = [f"Running since {since} on {self.state['host']}, {done} of {total} jobs done:"]
        jobs = [f"  {job['message']}: {job['progress']}" for job in self.state["jobs"]]
        return lines + (jobs or ["  (between two jobs)"])


def workflows(folder: Path = FOLDER) -> list[Workflow]:
    """All that run."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            workflow = Workflow(json.loads(path.read_text()), time.time() - path.stat().st_mtime)
        except (OSError, ValueError):
            continue
        if workflow.is_alive:
            found.append(workflow)
    return found


def process_exists(pid: int) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
