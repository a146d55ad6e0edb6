"""Several processes train what one does: prompts are dealt out, groups stay whole, gradients are averaged.

Real processes on this machine, which talk by gloo; with GPUs the same code talks by NCCL.

Starting processes takes longer than training does here: two of them are started once, for most of the tests.
Longer than 300 lines: the processes of all tests are started and compared by the same few functions.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mixgrpo.errors import UserError
from mixgrpo.models import load_policy
from mixgrpo.prompts import read_embeddings, read_prompts
from mixgrpo.provenance import ROOT
from mixgrpo.stages import train
from mixgrpo.training.distributed import Distributed, dealt

SECONDS = 600
"""That several processes may take on a busy machine."""


def arguments(world, folder: Path, **overrides) -> dict[str, Path]:
    overrides["training"] = {"num_iterations": 2} | overrides.get("training", {})
    return {
        "settings": world.write_settings(folder / "settings.json", **overrides),
        "prompts": world.prompts,
        "embeddings": world.embeddings,
        "checkpoints": folder / "checkpoints",
        "model": folder / "model.safetensors",
        "metrics": folder / "metrics.jsonl",
    }


def launch(processes: int, script: str, *args: str) -> subprocess.CompletedProcess:
    """`script` is what stands behind torchrun's options: a file, or -m and a module."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", *script.split(), *args]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def options(args: dict[str, Path]) -> list[str]:
    return [part for name, path in args.items() for part in (f"--{name}", str(path))]


TRAIN_ALL = """
import json, sys
from pathlib import Path
from accelerate.state import AcceleratorState
from mixgrpo.stages import train
from mixgrpo.training.distributed import Distributed
Distributed.finish = lambda self: None  # the processes stay together from one run to the next
for args in json.loads(Path(sys.argv[1]).read_text()):
    print("training by", args["settings"], file=sys.stderr, flush=True)
    train.run(**{name: Path(path) for name, path in args.items()})
    AcceleratorState._reset_state()
"""


def launch_all(processes: int, runs: list[dict[str, Path]], folder: Path) -> None:
    """Start `processes` once, which train all the runs one after another. folder: for what tells them."""
    script, told = folder / "train_all.py", folder / "runs.json"
    script.write_text(TRAIN_ALL)
    told.write_text(json.dumps(runs, default=str))
    done = launch(processes, str(script), str(told))
    assert done.returncode == 0, done.stderr


def trained(world, folder: Path, processes: int, **overrides) -> Path:
    """The folder of a run of `processes`."""
    args = arguments(world, folder, **overrides)
    if processes == 1:
        train.run(**args)
    else:
        done = launch(processes, "-m mixgrpo train", *options(args))
        assert done.returncode == 0, done.stderr
    return folder


def velocity(world, weights: Path | None, **overrides) -> torch.Tensor:
    settings = world.settings(**overrides)
    lora = settings.training.lora if weights is None else None
    policy = load_policy(settings.model, torch.device("cpu"), lora=lora)
    if weights is not None:
        policy.load_weights(weights)
    prompts = read_prompts(world.prompts)
    x = torch.randn(len(prompts), *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return policy.velocity(x, torch.tensor(0.7), read_embeddings(world.embeddings, prompts))


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(
    world, one: Path, other: Path, *, but: tuple[str, ...] = (), **overrides
) -> None:
    """The velocity fields differ by less than 1e-4 of what training changed (1e-5 when measured), metrics by 1e-4.

    but: metrics that may differ. Weights may: a key bias has no gradient but round-off, which Adam blows up to
    full steps.
    """
    fields = [velocity(world, folder / "model.safetensors", **overrides) for folder in (one, other)]
    learned = (fields[0] - velocity(world, None, **overrides)).abs().max()
    assert (fields[0] - fields[1]).abs().max() < 1e-4 * learned
    for a, b in zip(metrics(one), metrics(other), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if "seconds" not in name and name not in but:
                assert a[name] == pytest.approx(b[name], rel=1e-4, abs=1e-4), name


# Dealing


@pytest.mark.parametrize("num", [1, 2, 5, 8, 32])
def test_everything_is_dealt_once_and_evenly(num):
    for world_size in range(1, num + 1):
        hands = [dealt(num, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert [k for hand in hands for k in hand] == list(range(num))
        sizes = [len(hand) for hand in hands]
        assert max(sizes) - min(sizes) <= 1
        assert sizes == sorted(sizes, reverse=True)


def process(rank: int, world_size: int, monkeypatch) -> Distributed:
    made = Distributed()
    monkeypatch.setattr(Distributed, "rank", rank)
    monkeypatch.setattr(Distributed, "world_size", world_size)
    return made


def test_a_process_without_a_prompt_is_refused(monkeypatch):
    with pytest.raises(UserError, match=r"3 processes for training\.num_prompts=2"):
        process(0, 3, monkeypatch).deal(2, sharded=False)


def test_processes_do_not_share_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    with pytest.raises(UserError, match="32 processes were started on this machine, which has 8"):
        Distributed()


def test_sharded_processes_need_as_many_prompts_each(monkeypatch):
    distributed = process(1, 2, monkeypatch)
    assert list(distributed.deal(3, sharded=False)) == [2]
    with pytest.raises(UserError, match=r"num_prompts=3 over 2 processes.*fsdp"):
        distributed.deal(3, sharded=True)


def test_gradients_of_a_large_model_are_reduced_a_bucket_at_a_time(monkeypatch):
    """Every one once; only a single gradient may be larger than a bucket."""
    distributed = process(0, 2, monkeypatch)
    sizes: list[int] = []

    def halve(flat: torch.Tensor, how: str) -> torch.Tensor:
        assert how == "mean"
        sizes.append(len(flat))
        return flat / 2

    monkeypatch.setattr(distributed.accelerator, "reduce", halve)
    monkeypatch.setattr("mixgrpo.training.distributed.BUCKET", 10)
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 4, 2, 25, 1, 1, 9)]
    parameters.append(torch.nn.Parameter(torch.zeros(5)))  # without a gradient
    for number, parameter in enumerate(parameters[:-1], start=1):
        parameter.grad = torch.full_like(parameter, 2.0 * number)
    distributed.average_gradients(parameters)
    for number, parameter in enumerate(parameters[:-1], start=1):
        assert (parameter.grad == number).all()
    assert parameters[-1].grad is None
    assert sum(sizes) == 45
    assert len(sizes) > 3
    assert all(size <= 10 or size == 25 for size in sizes)


def test_a_lost_connection_points_to_the_process_that_failed(monkeypatch):
    distributed = process(1, 2, monkeypatch)
    lost = distributed.explain(RuntimeError("gloo: Connection closed by peer [127.0.0.1]:1"))
    assert "process 1 of 2: lost another process, which ended or was silent for 0:30:00" in str(
        lost
    )
    assert str(distributed.explain(UserError("no such file"))) == "process 1 of 2: no such file"
    assert distributed.explain(RuntimeError("shapes do not match")) is None
    assert distributed.explain(KeyError("x")) is None


# Whole weights in every process


FIVE = {"training": {"num_prompts": 5}}


SHARDED = {"sharding": "fsdp", "gradient_checkpointing": True}
DANCE_GRPO = {
    "sampling": {"noise": "dance_grpo", "eta": 0.3, "sde_steps": "all_but_last", "num_steps": 8},
    "trained_steps": {"choice": "random", "count": 4},
}
PLAIN = {"num_prompts": 4, "micro_batch": 1}
LORA = {"rank": 4, "alpha": 8}
SD3_METHODS = {
    "kl": {"training": {"lora": LORA, "kl_weight": 0.01}},
    "dpo": {
        "training": {"lora": LORA},
        "sampling": {"num_steps": 6},
        "dpo": {"pairs": "online", "num_levels": 4},
    },
}
"""Both hold the policy against a second network, sharded too; DPO's takes up the policy's weights on the way."""


def sharded(method: dict, **training) -> dict:
    """The method with its weights in parts."""
    return method | {"training": method.get("training", {}) | SHARDED | training}


BF16 = {"training": {"precision": "bf16", "num_updates": 1}}
BY_TWO = {
    "five": FIVE,
    "update": sharded(DANCE_GRPO, **PLAIN, gradient_reduction="update"),
    "backward": sharded(DANCE_GRPO, **PLAIN, gradient_reduction="backward"),
    "bf16 full": sharded(BF16),
    "bf16 lora": sharded(BF16, lora=LORA),
    **{name: sharded(method) for name, method in SD3_METHODS.items()},
}
"""What two processes train."""


@pytest.fixture(scope="module")
def by_two(world, sd3_world, tmp_path_factory) -> Path:
    """A folder for each of BY_TWO."""
    root = tmp_path_factory.mktemp("by_two")
    runs = [
        arguments(sd3_world if name in SD3_METHODS else world, root / name, **overrides)
        for name, overrides in BY_TWO.items()
    ]
    launch_all(2, runs, root)
    return root


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory) -> Path:
    return trained(world, tmp_path_factory.mktemp("alone"), 1, **FIVE)


@pytest.mark.slow
def test_two_processes_end_where_one_does(world, alone, by_two):
    """Five prompts: 3 and 2."""
    assert_same_run(world, alone, by_two / "five", **FIVE)


@pytest.mark.slow
def test_four_processes_end_where_one_does(world, alone, tmp_path):
    """Five prompts: 2, 1, 1 and 1; started as the workflow starts them."""
    assert_same_run(world, alone, trained(world, tmp_path, 4, **FIVE), **FIVE)


ONE_FAILS = """
import os
from mixgrpo.__main__ import main
from mixgrpo.errors import RewardError
from mixgrpo.training.scoring import Scoring
finish = Scoring.finish
def failing(scoring):
    if os.environ["RANK"] == "1":
        raise RewardError("the reward of process one is out of order")
    return finish(scoring)
Scoring.finish = failing
raise SystemExit(main())
"""


@pytest.mark.slow
def test_the_failure_of_one_process_ends_them_all_with_its_message(world, tmp_path):
    """Long before `SECONDS`: the other one waits for it in a reduction."""
    script = tmp_path / "one_fails.py"
    script.write_text(ONE_FAILS)
    done = launch(2, str(script), "train", *options(arguments(world, tmp_path)))
    assert done.returncode != 0
    assert "error: " in done.stderr
    assert "process 1 of 2: the reward of process one is out of order" in done.stderr
    assert "Traceback" not in done.stderr.split("torch/distributed")[0]
    assert not (tmp_path / "model.safetensors").exists()


# Weights in parts


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory) -> Path:
    method = DANCE_GRPO | {"training": PLAIN}
    return trained(world, tmp_path_factory.mktemp("whole"), 1, **method)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["update", "backward"])
def test_sharded_weights_end_where_whole_ones_do(world, whole, by_two, reduction):
    """DanceGRPO's random steps: the processes have different numbers of passes, and one repeats its last."""
    method = DANCE_GRPO | {"training": PLAIN}
    assert_same_run(world, whole, by_two / reduction, but=("update_evaluations",), **method)
    own, repeated = (
        sum(row["update_evaluations"] for row in metrics(folder))
        for folder in (whole, by_two / reduction)
    )
    assert repeated > own


@pytest.mark.slow
@pytest.mark.parametrize("name", SD3_METHODS)
def test_sharded_adapters_end_where_whole_ones_do(sd3_world, by_two, tmp_path, name):
    """SD3.5 with adapters; the file of adapters is the same."""
    method = SD3_METHODS[name]
    one = trained(sd3_world, tmp_path, 1, **method)
    assert_same_run(sd3_world, one, by_two / name, **method)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bf16 full", "bf16 lora"])
def test_sharded_in_bf16_the_ratio_is_exactly_one_before_the_first_update(by_two, name):
    """What is recomputed and gathered again is the same to the last bit; one update, so nothing has moved."""
    for row in metrics(by_two / name):
        assert row["ratio_deviation"] == 0
        assert row["grad_norm"] > 0


STOPS = """
from mixgrpo.__main__ import main
from mixgrpo.errors import UserError
from mixgrpo.stages import train
iterate = train.iterate
def iterate_or_stop(trainer, iteration):
    if iteration == 2:
        raise UserError("stopped")
    return iterate(trainer, iteration)
train.iterate = iterate_or_stop
raise SystemExit(main())
"""


@pytest.mark.slow
def test_a_sharded_run_goes_on_with_another_number_of_processes(world, tmp_path):
    """Two processes write the checkpoint, one reads it, and the run ends where an undisturbed one does."""
    training = SHARDED | {"num_iterations": 4, "checkpoint_interval": 2}
    undisturbed = trained(world, tmp_path / "undisturbed", 1, training=training)
    script = tmp_path / "stops.py"
    script.write_text(STOPS)
    args = arguments(world, tmp_path / "moved", training=training)
    stopped = launch(2, str(script), "train", *options(args))
    assert stopped.returncode != 0
    assert "stopped" in stopped.stderr
    (checkpoint,) = (tmp_path / "moved" / "checkpoints").glob("*/checkpoint")
    assert len(list(checkpoint.glob("shard-*.safetensors"))) == 2
    train.run(**args)
    assert_same_run(world, undisturbed, tmp_path / "moved", training=training)
    assert metrics(tmp_path / "moved")[0]["iteration"] == 0
