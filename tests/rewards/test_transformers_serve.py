"""The client of Unified Reward against a real server with a real vision-language model: `transformers serve`."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mixgrpo.errors import RewardError
from mixgrpo.rewards import load_reward
from tests.rewards.tiny_llava import save_tiny_llava

CPU = torch.device("cpu")
SECONDS_TO_START = 120


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that calls its model UnifiedReward because that is the name of the model's directory."""
    root = tmp_path_factory.mktemp("models")
    save_tiny_llava(root / "UnifiedReward")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "UnifiedReward"]
    options = ["--device", "cpu", "--host", "127.0.0.1", "--port", port]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hub")}
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            command + options, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process, root / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def wait_for(health: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and process.poll() is None:
        try:
            opener.open(health, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not start:\n{log.read_text()}")


@pytest.mark.parametrize(
    ("question_type", "bright", "dark"), [("score", 4.5, 1.5), ("semantic", 4.25, 1.25)]
)
def test_each_picture_gets_the_number_that_the_model_says_of_it(
    url: str, question_type: str, bright: float, dark: float
):
    reward = load_reward(
        "unified_reward", None, CPU, {"url": url, "question_type": question_type, "concurrency": 3}
    )
    levels = torch.tensor([0.9, 0.1, 0.7, 0.2, 0.3, 1.0])
    images = levels[:, None, None, None].expand(-1, 3, 48, 64)
    prompts = ["a cat", "a bright cat", "", 'quotes " and {braces}', "e", "many words " * 200]
    scores = reward.score(images, prompts)
    assert scores.tolist() == [bright, dark, bright, dark, dark, bright]


def test_another_model_name_is_refused_with_what_the_server_says(url: str):
    reward = load_reward("unified_reward", None, CPU, {"url": url, "model": "other"})
    with pytest.raises(
        RewardError, match=r"pinned to 'UnifiedReward'; requested 'other'\..*option model"
    ):
        reward.score(torch.zeros(1, 3, 32, 32), ["a cat"])
