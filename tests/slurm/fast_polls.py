"""Snakemake that asks twice a second how its Slurm jobs are, and says when: by touching the file $POLLED.

Its plugin's pauses between two questions grow from one to the next, and no option stops that. Only the process that
submits is changed: jobs start `python -m snakemake` themselves.
"""

import asyncio
import os
import sys
from pathlib import Path

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def pause(self: RemoteExecutor) -> None:
    Path(os.environ["POLLED"]).touch()
    await asyncio.sleep(0.5)


if __name__ == "__main__":
    RemoteExecutor.sleep = pause
    main(sys.argv[1:])
