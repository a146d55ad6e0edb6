"""Sharded networks: the main process alone reads weights, the others are sent their parts."""

from pathlib import Path

import pytest
import torch

from mixgrpo.config import LoraConfig, canonical, parse
from mixgrpo.models import load_policy
from tests.models.conftest import Small
from tests.models.small import RESOLUTION
from tests.training.test_distributed import launch

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8)], ids=["full", "lora"])
def test_without_weights_a_network_is_the_same_on_the_meta_device(small: Small, lora, dtype):
    """Or the processes would send each other tensors of other sizes. All but the network is there."""
    whole, hollow = (
        load_policy(small.config(), CPU, lora=lora, dtype=dtype, weights=weights)
        for weights in (True, False)
    )

    def facts(network: torch.nn.Module) -> list[tuple[object, ...]]:
        named = [*network.named_parameters(), *network.named_buffers()]
        return [(name, t.shape, t.dtype, t.requires_grad) for name, t in named]

    assert facts(hollow.network) == facts(whole.network)
    assert all(t.is_meta for t in hollow.network.state_dict().values())
    latents = torch.zeros(1, *whole.latent_shape)
    assert torch.equal(hollow.decode(latents), whole.decode(latents))


LOADS = """
import os, sys, torch
from pathlib import Path
from mixgrpo.config import read_settings
from mixgrpo.models import _diffusers, load_policy
from mixgrpo.training import sharding
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.trainer import frozen_dtype, load_prepared

read, rank = _diffusers.load_network, int(os.environ["RANK"])
def load_network(*args):
    assert rank == 0, "process 1 read the weights"
    return read(*args)

for path in sys.argv[1:]:
    config = read_settings(Path(path))
    distributed = Distributed(precision=config.training.precision)
    _diffusers.load_network = load_network
    policy = load_prepared(config, distributed, trained=True)
    assert sharding.is_sharded(policy.network)
    parts = sum(p.to_local().numel() for p in policy.network.parameters())
    _diffusers.load_network = read
    found = sharding.whole_weights(policy.network, keep=True)
    dtype = frozen_dtype(config.training)
    wanted = load_policy(config.model, distributed.device, lora=config.training.lora, dtype=dtype)
    wanted = wanted.network.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    whole = sum(t.numel() for t in wanted.values())
    print(f"process {rank}: {parts / whole:.2f} of {config.model.name}", flush=True)
"""


@pytest.mark.slow
def test_one_process_reads_and_each_gets_its_part(flux: Small, sd3: Small, tmp_path: Path):
    paths = []
    for small, lora in ((flux, None), (sd3, {"rank": 4, "alpha": 8})):
        model = {"name": small.name, "path": str(small.path), "resolution": RESOLUTION}
        run = {
            "preset": "small",
            "seed": 0,
            "dataset": "mine",
            "model": model,
            "rewards": {"sharpness": {}},
            "training": {"sharding": "fsdp", "precision": "bf16", "num_prompts": 2, "lora": lora},
        }
        paths.append(tmp_path / f"{small.name}.json")
        paths[-1].write_text(canonical(parse(run, where="test")))
    script = tmp_path / "loads.py"
    script.write_text(LOADS)
    done = launch(2, str(script), *map(str, paths))
    assert done.returncode == 0, done.stderr
    shares = [line.split()[2] for line in sorted(done.stdout.splitlines())]
    assert len(shares) == 4, "two models, two processes"
    assert all(0.35 < float(share) < 0.65 for share in shares)
