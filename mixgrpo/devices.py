"""Which GPU a job of one process takes, where several jobs share a machine."""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

import torch

_held: list[IO[str]] = []
"""Open lock files: a GPU is taken until the process ends."""


def own_device() -> torch.device:
    """A GPU that no other such job of this user has, the first one if there is none left; the CPU without GPUs.

    A cluster shows each job its own GPUs, so the first is right there.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    folder = Path(tempfile.gettempdir()) / f"mixgrpo-gpus-{os.getuid()}"
    return torch.device("cuda", claim(torch.cuda.device_count(), folder))


def claim(num_devices: int, folder: Path) -> int:
    """Index of the first device whose lock file in `folder` is free, which this process then holds; else 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(i) for i in range(num_devices)]
    folder.mkdir(mode=0o700, exist_ok=True)
    for index, name in enumerate(names[:num_devices]):
        file = (folder / f"{name}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return index
    return 0
