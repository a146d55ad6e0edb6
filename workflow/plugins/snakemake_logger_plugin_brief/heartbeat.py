"""What runs now, in a file that `make status` reads: logs/running/{host}-{pid}.json.

It is written again every few seconds while the workflow runs and removed when it ends; when the workflow is
killed, the file grows old. So nobody has to ask Snakemake, which may be on another machine.
"""

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

FOLDER = Path("logs/running")


class Heartbeat:
    """The file of this process."""

    def __init__(self) -> None:
        self.path = FOLDER / f"{socket.gethostname()}-{os.getpid()}.json"

    def write(self, state: dict[str, Any]) -> None:
        """Say what runs; a disk that refuses is no reason to stop the workflow."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps(state))
            temporary.replace(self.path)

    def end(self) -> None:
        """Nothing runs any more."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
