"""Small FLUX.1-dev and SD3.5-M checkpoints through every stage: hub, text, training, pictures, plain diffusers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from mixgrpo.config import canonical, parse
from mixgrpo.errors import UserError
from mixgrpo.imagesets import read_index
from mixgrpo.models import base_fingerprint, load_policy, load_text_encoder
from mixgrpo.stages import embed, export, generate, prompts, score, train
from tests.fakehub import COMMIT, connected
from tests.models.conftest import Small
from tests.models.small import RESOLUTION
from tests.training.test_distributed import launch, options

CPU = torch.device("cpu")
TEXTS = ["a fox", "two foxes; one asleep", "the letter q", "rain"]


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Its state is one for the process, and other tests compute in another precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def settings_of(small: Small, **training: object) -> dict[str, object]:
    """A run of one iteration."""
    guidance = {"flux": 3.5, "sd3": 4.5}[small.name]
    schedule = {"flux": "shifted", "sd3": "sd3"}[small.name]
    return {
        "preset": "small",
        "seed": 0,
        "dataset": "mine",
        "model": {
            "name": small.name,
            "path": str(small.path),
            "resolution": RESOLUTION,
            "guidance": guidance,
            "schedule": schedule,
            "text_precision": "bf16",
        },
        "rewards": {"sharpness": {}},
        "window": {"size": 2},
        "sampling": {"num_steps": 4},
        "training": {
            "num_iterations": 1,
            "num_prompts": 2,
            "group_size": 4,
            "num_updates": 2,
            "micro_batch": 4,
            "learning_rate": 1e-2,
            "precision": "bf16",
            **training,
        },
    }


def make_text(small: Small, root: Path) -> None:
    (root / "mine.txt").write_text("\n".join(TEXTS))
    rows = root / "mine_train.tsv"
    prompts.run(dataset="mine", split="train", num=4, output=rows, file=root / "mine.txt")
    embed.run(
        model=small.name,
        base=small.path,
        prompts=rows,
        output=root / "mine_train.safetensors",
        precision="bf16",
    )


def train_once(small: Small, root: Path, *, processes: int = 1, **training: object) -> Path:
    root.mkdir(exist_ok=True)
    make_text(small, root)
    settings = canonical(parse(settings_of(small, **training), where="test"))
    (root / "settings.json").write_text(settings)
    args = {
        "settings": root / "settings.json",
        "prompts": root / "mine_train.tsv",
        "embeddings": root / "mine_train.safetensors",
        "checkpoints": root / "checkpoints",
        "model": root / "model.safetensors",
        "metrics": root / "metrics.jsonl",
    }
    if processes == 1:
        train.run(**args)
    else:
        done = launch(processes, "-m mixgrpo train", *options(args))
        assert done.returncode == 0, done.stderr
    return root / "model.safetensors"


def generate_once(root: Path, model: Path | None, name: str, **changes: object) -> Path:
    wanted = {"num_steps": 4, "shift": 3.0, "seed": 1, "batch_size": 4, **changes}
    sets = [{"dataset": "mine", "split": "train", "p_mix": 1.0}]
    (root / "evaluation.json").write_text(json.dumps({**wanted, "sets": sets}))
    generate.run(
        settings=root / "settings.json",
        evaluation=root / "evaluation.json",
        model=model,
        prompts=root,
        embeddings=root,
        index=root / name / "index.json",
    )
    return root / name


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8}], ids=["full", "lora"])
def test_train_generate_and_score(small: Small, tmp_path: Path, lora):
    model = train_once(small, tmp_path, lora=lora)
    weights = load_file(model)
    assert any(".lora_" in name for name in weights) == (lora is not None)
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    base, tuned = (generate_once(tmp_path, m, n) for m, n in ((None, "base"), (model, "tuned")))
    pictures = [sorted(folder.rglob("*.png")) for folder in (base, tuned)]
    assert [len(found) for found in pictures] == [4, 4]
    assert [a.read_bytes() != b.read_bytes() for a, b in zip(*pictures, strict=True)] == [True] * 4
    (tmp_path / "rewards.json").write_text('{"sharpness": {"path": null}}')
    scores = tmp_path / "scores" / "index.json"
    score.run(images=tuned / "index.json", rewards=tmp_path / "rewards.json", index=scores)
    (found,) = read_index(scores, "scores")
    assert (found["reward"], found["num_images"]) == ("sharpness", 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [{"lora": {"rank": 4, "alpha": 8}}, {"sharding": "fsdp", "gradient_checkpointing": True}],
    ids=["lora", "full"],
)
def test_two_processes_train_what_one_does(small: Small, tmp_path: Path, training: dict):
    """Velocities differ by less than 1e-3 of what training changed. The weights are sharded where all are trained."""
    one, two = (
        train_once(small, tmp_path / f"{n}", processes=n, precision="no", **training)
        for n in (1, 2)
    )
    cond = load_text_encoder(small.config(), CPU)(TEXTS)
    policies = [load_policy(small.config(), CPU) for _ in range(3)]
    policies[1].load_weights(one)
    policies[2].load_weights(two)
    noise = torch.randn(4, *policies[0].latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base, a, b = (p.velocity(noise, torch.tensor(0.7), cond) for p in policies)
    assert (a - b).abs().max() < 1e-3 * (a - base).abs().max()


LOAD = """
import sys, torch, diffusers
pipe = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1], torch_dtype=torch.float32)
images = pipe(["a fox"], num_inference_steps=2, height=64, width=64, output_type="pt",
              generator=torch.Generator().manual_seed(0)).images
assert images.shape == (1, 3, 64, 64) and images.isfinite().all()
assert not any(name.startswith("mixgrpo") for name in sys.modules)
torch.save(pipe.transformer.state_dict(), sys.argv[2])
"""


def test_plain_diffusers_loads_the_exported_folder(small: Small, tmp_path: Path):
    """In a process without this package; the weights are the trained ones, rounded to bf16."""
    model = train_once(small, tmp_path)
    export.run(settings=tmp_path / "settings.json", model=model, output=tmp_path / "folder")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "folder"), str(tmp_path / "found.pt")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    found, trained = torch.load(tmp_path / "found.pt"), load_file(model)
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[n], t.bfloat16().float()) for n, t in trained.items())
    with pytest.raises(UserError, match=r"folder exists. Delete it or name another"):
        export.run(settings=tmp_path / "settings.json", model=model, output=tmp_path / "folder")


def test_a_lora_file_needs_no_export(flux: Small, tmp_path: Path):
    model = train_once(flux, tmp_path, lora={"rank": 4, "alpha": 8})
    with pytest.raises(UserError, match=r"needs no export: `pipe.load_lora_weights\("):
        export.run(settings=tmp_path / "settings.json", model=model, output=tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert not list(tmp_path.glob(".folder.tmp"))


def test_from_the_hub_by_commit(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Training fetches transformer and autoencoder, embedding the rest; then neither needs the hub again."""
    config = small.config(path="someone/model", revision=COMMIT)
    with connected(small.path, tmp_path / "cache", monkeypatch) as hub:
        policy = load_policy(config, CPU)
        fetched = {asked.split("/")[5] for asked in hub.asked if asked.startswith("GET /someone")}
        assert fetched == {"model_index.json", "transformer", "vae"}
        cond = load_text_encoder(config, CPU)(["a fox"])
        hub.asked.clear()
        load_policy(config, CPU)
        load_text_encoder(config, CPU)
        assert not hub.asked
    local = load_policy(small.config(), CPU)
    noise = torch.randn(1, *local.latent_shape)
    with torch.no_grad():
        v, same = (p.velocity(noise, torch.tensor(0.5), cond) for p in (policy, local))
    assert torch.equal(v, same)
    assert base_fingerprint(config) == f"someone/model@{COMMIT}"
    assert base_fingerprint(small.config()) != base_fingerprint(config)


def test_a_hub_model_of_another_family_is_named(
    sd3: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = sd3.config(name="flux", path="someone/model", revision=COMMIT)
    with (
        connected(sd3.path, tmp_path / "cache", monkeypatch),
        pytest.raises(UserError, match=r"of another model family.*wanted FluxPipeline"),
    ):
        load_policy(config, CPU)


def test_pictures_are_drawn_at_the_resolution_of_the_evaluation(flux: Small, tmp_path: Path):
    make_text(flux, tmp_path)
    settings = canonical(parse(settings_of(flux), where="test"))
    (tmp_path / "settings.json").write_text(settings)
    for size in (48, 96):
        folder = generate_once(tmp_path, None, f"at {size}", resolution=size)
        sizes = [Image.open(picture).size for picture in folder.rglob("*.png")]
        assert sizes == [(size, size)] * 4
