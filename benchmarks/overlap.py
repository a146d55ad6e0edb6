"""What it brings that served rewards score finished groups while the next are sampled.

    make bench            or            python benchmarks/overlap.py [settings.json]

Whole training iterations in one process, in turns: as they are, and with the images kept back until all are sampled.
A reward that a process of its own serves takes the place of the settings' own; it waits instead of computing, so many
seconds for each group of images. Printed: seconds of sampling, of waiting for the reward, and of an iteration, the
fastest of each; and kept back / as it is. The default settings are those of preset tiny's MixGRPO cell, which
`make reproduce` leaves, with one group in a batch; the last line has all groups in one batch, as tiny does.
"""

import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from torch import Tensor

from mixgrpo.config import Settings, read_settings
from mixgrpo.errors import UserError
from mixgrpo.rewards import CheckedReward
from mixgrpo.rewards._remote import RemoteReward
from mixgrpo.stages.serve_reward import make_server
from mixgrpo.training import iteration
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.scoring import Scored, Scoring
from mixgrpo.training.trainer import Trainer, load_trainer

DEFAULT = Path("results/tiny/runs/mixgrpo/seed0/settings.json")
NUM_PROMPTS = 4
SECONDS = (0.0, 0.1, 0.25, 1.0)
"""Of the reward for each group."""
REPETITIONS = 5


class Slow:
    """Says how bright an image is, after so many seconds for each."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As every reward."""
        time.sleep(self.seconds * len(images))
        return images.mean((1, 2, 3))


class KeptBack(Scoring):
    """Asks the rewards for nothing until all images are sampled, and then for all at once."""

    def __init__(self, rewards: Sequence[CheckedReward], *, cpu_time: bool = False) -> None:
        super().__init__(rewards, cpu_time=cpu_time)
        self.kept: list[tuple[Tensor, Sequence[str]]] = []

    def add(self, images: Tensor, prompts: Sequence[str]) -> None:
        """Keep them."""
        self.kept.append((images, prompts))

    def finish(self) -> dict[str, Scored]:
        """As `Scoring.finish`."""
        images = torch.cat([images for images, _ in self.kept])
        super().add(images, [prompt for _, prompts in self.kept for prompt in prompts])
        return super().finish()


def serve(seconds: Sequence[float], group_size: int, urls: "Queue[str]") -> None:
    """A server of one reward for each of `seconds`, in a process of its own, until it is terminated."""
    rewards = {f"slow_{s}": CheckedReward("slow", Slow("slow", s / group_size)) for s in seconds}
    with make_server(rewards, "127.0.0.1", 0) as server:
        urls.put(server.url)
        server.serve_forever()


def compare(trainer: Trainer, what: str, url: str, seconds: float) -> str:
    """One printed line: iterations with and without the overlap take turns."""
    name = f"slow_{seconds}"
    reward = CheckedReward(name, RemoteReward(name, url), elsewhere=True)
    trainer = replace(trainer, rewards=[reward], weights={name: 1.0})
    found: dict[type[Scoring], list[dict[str, float]]] = {Scoring: [], KeptBack: []}
    for _ in range(1 + REPETITIONS):  # the first is a warm-up
        for scoring, rows in found.items():
            iteration.Scoring = scoring  # type: ignore[misc]
            rows.append(iteration.iterate(trainer, len(rows)))
    iteration.Scoring = Scoring  # type: ignore[misc]
    fastest = {
        (scoring, key): min(row[key] for row in rows[1:])
        for scoring, rows in found.items()
        for key in ("rollout_seconds", "reward_wait_seconds", "seconds")
    }
    kept, overlap = fastest[KeptBack, "seconds"], fastest[Scoring, "seconds"]
    return (
        f"{what:12s} {seconds:8.2f} {fastest[KeptBack, 'rollout_seconds']:9.2f} "
        f"{fastest[KeptBack, 'reward_wait_seconds']:9.2f} {fastest[Scoring, 'reward_wait_seconds']:9.2f} "
        f"{kept:9.2f} {overlap:9.2f} {kept / overlap:7.2f}"
    )


def load(path: Path) -> Trainer:
    """The trainer of the run at `path`, with one group in a batch."""
    settings: Settings = read_settings(path)
    size = settings.training.group_size
    training = replace(settings.training, num_prompts=NUM_PROMPTS, micro_batch=size)
    settings = replace(settings, training=training)
    root, stem = path.parents[3], f"{settings.dataset}_train"
    return load_trainer(
        settings,
        Distributed(precision=settings.training.precision),
        prompts=root / "prompts" / f"{stem}.tsv",
        embeddings=root / "embeddings" / settings.model.name / f"{stem}.safetensors",
        rewards=[Slow("slow", 0.0)],
    )


def main(path: Path) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    trainer = load(path)
    training = trainer.settings.training
    together = replace(training, micro_batch=NUM_PROMPTS * training.group_size)
    merged = replace(trainer, settings=replace(trainer.settings, training=together))
    context = multiprocessing.get_context("spawn")
    urls: Queue[str] = context.Queue()
    server = context.Process(target=serve, args=(SECONDS, training.group_size, urls), daemon=True)
    server.start()
    try:
        url = urls.get(timeout=600)
        print(
            f"preset {trainer.settings.preset}, {trainer.distributed.device}, {torch.get_num_threads()} thread, "
            f"{NUM_PROMPTS} groups of {training.group_size}"
        )
        print("             reward's           waiting             iteration        ")
        print("a batch      s/group    sampling  kept back overlapped kept back overlapped ratio")
        for seconds in SECONDS:
            print(compare(trainer, "one group", url, seconds), flush=True)
        print(compare(merged, "all groups", url, SECONDS[-1]), flush=True)
    finally:
        server.terminate()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT)
    except UserError as error:
        sys.exit(f"benchmarks/overlap.py: error: {error}")
