"""Training that is asked to end, and two jobs that train the same: nothing is lost and nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mixgrpo.errors import Stopped, UserError
from mixgrpo.locks import Lock
from mixgrpo.provenance import ROOT
from mixgrpo.stages import train
from mixgrpo.training.iteration import iterate
from tests.stages.test_train import (  # noqa: F401 -- a fixture
    arguments,
    assert_same_weights,
    undisturbed,
    without_seconds,
)

SECONDS = 120
"""That a process may take on a busy machine."""


def assert_same_run(a: Path, b: Path) -> None:
    assert_same_weights(a / "model.safetensors", b / "model.safetensors")
    assert without_seconds(a / "metrics.jsonl") == without_seconds(b / "metrics.jsonl")


def options(args: dict[str, Path]) -> list[str]:
    return [part for name, path in args.items() for part in (f"--{name}", str(path))]


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen]:
    """A process with its stderr as text; killed at the end if it still runs."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, *command], stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(fact, what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not fact():
        assert time.monotonic() < deadline, f"waited {SECONDS} s for {what}"
        time.sleep(0.01)


def num_rows(checkpoints: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in checkpoints.glob("*/metrics.jsonl"))


def sigterm_in(when: int):
    """An iteration that is asked to end while it computes."""

    def iterate_and_signal(trainer, iteration):
        if iteration == when:
            os.kill(os.getpid(), signal.SIGTERM)
        return iterate(trainer, iteration)

    return iterate_and_signal


def test_sigterm_ends_after_the_iteration_and_nothing_is_lost(
    world,
    undisturbed,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    """The world's checkpoints are two iterations apart; the one that SIGTERM came in is kept too."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(train, "iterate", sigterm_in(2))
    with pytest.raises(Stopped, match="after iteration 3 of 6; its checkpoint is kept"):
        train.run(**arguments(world, tmp_path))
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "model.safetensors").exists()
    monkeypatch.setattr(train, "iterate", only_from(3))
    train.run(**arguments(world, tmp_path))
    assert_same_run(tmp_path, undisturbed)


def only_from(first: int):
    def iterate_late(trainer, iteration):
        assert iteration >= first, "an iteration that was done before"
        return iterate(trainer, iteration)

    return iterate_late


def test_sigterm_in_the_last_iteration_is_a_finished_run(world, undisturbed, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(train, "iterate", sigterm_in(5))
    train.run(**arguments(world, tmp_path))
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_command_says_75_and_goes_on(world, undisturbed, tmp_path, processes):  # noqa: F811
    """Of two processes the one that torchrun tells late stops after the same iteration."""
    args = arguments(world, tmp_path / "stopped")
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*(launcher if processes > 1 else []), "-m", "mixgrpo", "train"]
    with started(*command, *options(args)) as process:
        wait_for(lambda: num_rows(args["checkpoints"]) > 0, "an iteration")
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == (75 if processes == 1 else 1), told  # torchrun has its own
    assert "checkpoint is kept" in told
    assert 0 < num_rows(args["checkpoints"]) < 6
    with started(*command, *options(args)) as process:
        told = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 0, told
    whole = undisturbed
    if processes > 1:
        whole = tmp_path / "whole"
        with started(*command, *options(arguments(world, whole))) as process:
            told = process.communicate(timeout=SECONDS)[1]
    assert_same_run(tmp_path / "stopped", whole)


@pytest.mark.slow
def test_a_second_job_waits_and_trains_nothing(world, undisturbed, tmp_path):  # noqa: F811
    """After a kill -9 of Snakemake its job runs on; the next one's job must not do the same again."""
    args = arguments(world, tmp_path)
    command = ["-m", "mixgrpo", "train", *options(args)]
    with started(*command) as first:
        wait_for(lambda: num_rows(args["checkpoints"]) > 0, "an iteration")
        with started(*command) as second:
            told = second.communicate(timeout=SECONDS)[1]
        assert first.wait(SECONDS) == 0
    assert second.returncode == 0, told
    assert f"Waiting for pid {first.pid} on " in told
    assert "another job has trained this run" in told
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_job_that_waits_ends_on_sigterm(world, tmp_path):
    args = arguments(world, tmp_path)
    key = train.run_key(
        train.read_settings(args["settings"]),
        prompts=args["prompts"],
        embeddings=args["embeddings"],
    )
    lock = Lock(args["checkpoints"] / f"{key}.lock")
    assert lock.take()
    with started("-m", "mixgrpo", "train", *options(args)) as process:
        assert process.stderr is not None
        line = ""
        while "Waiting for" not in line:
            line = process.stderr.readline()
            assert line, "ended without a word"
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=SECONDS)[1]
    lock.release()
    assert process.returncode == 75
    assert f"stopped by SIGTERM while waiting for pid {os.getpid()}" in told


def test_what_another_run_left_at_the_same_paths_is_trained_anew(world, undisturbed, tmp_path):  # noqa: F811
    for name in ("model.safetensors", "metrics.jsonl"):
        (tmp_path / name).write_text("of other settings")
    train.run(**arguments(world, tmp_path))
    assert_same_run(tmp_path, undisturbed)


def test_a_run_that_was_planned_anew_meanwhile_writes_nothing(world, tmp_path, monkeypatch):
    args = arguments(world, tmp_path)

    def iterate_while_replanned(trainer, iteration):
        settings = json.loads(args["settings"].read_text())
        settings["window"]["size"] += 1
        args["settings"].write_text(json.dumps(settings))
        return iterate(trainer, iteration)

    monkeypatch.setattr(train, "iterate", iterate_while_replanned)
    with pytest.raises(UserError, match="changed while this run trained"):
        train.run(**args)
    assert not args["model"].exists()
