"""Jobs that share a machine take a GPU each."""

import subprocess
import sys
from pathlib import Path

import torch

from mixgrpo.devices import own_device

CLAIM = """
import sys
from pathlib import Path
from mixgrpo.devices import claim
print(claim(2, Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def start(folder: Path, env: dict[str, str] | None = None) -> subprocess.Popen:
    command = [sys.executable, "-c", CLAIM, str(folder)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)


def test_each_process_takes_a_device_and_gives_it_back_when_it_ends(tmp_path: Path):
    first, second, third = (start(tmp_path / "gpus") for _ in range(3))
    try:
        taken = [process.stdout.readline().strip() for process in (first, second, third)]
        assert sorted(taken) == ["0", "0", "1"]  # the third finds none free
        for process in (first, second, third):
            process.communicate()
        fourth = start(tmp_path / "gpus")
        assert fourth.communicate()[0].strip() == "0"
    finally:
        for process in (first, second, third):
            process.kill()


def test_without_a_gpu_it_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device() == torch.device("cpu")
