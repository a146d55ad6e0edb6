"""Small FLUX.1-dev and SD3.5-M checkpoints through every stage: hub, text, training, pictures, plain diffusers."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from mixgrpo.errors import UserError
from mixgrpo.models import base_fingerprint, load_policy, load_text_encoder
from mixgrpo.stages import export
from tests.fakehub import COMMIT, connected
from tests.models.chain import TEXTS, Chain, chain
from tests.models.conftest import Small
from tests.training.test_distributed import launch_all

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Its state is one for the process, and other tests compute in another precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def assert_table(run: Chain) -> None:
    """Its scores are those of the pictures, its NFE those of the training, and the paper's stand beside them."""
    data = run.table().set_index("label")
    assert list(data.index) == ["before", "after"]
    assert (data["num_images"] == 4).all()
    for reward in ("sharpness", "colorfulness"):
        for label, cell, p_mix in (("before", run.base, 0.0), ("after", run.tuned, 0.8)):
            file = run.results / "scores" / cell / "seed0" / "mine_test" / f"p{p_mix:.2f}"
            scores = pd.read_csv(file / f"{reward}.csv", comment="#")["score"]
            assert data.loc[label, f"ours_{reward}"] == pytest.approx(scores.mean(), rel=1e-6)
    assert data["ours_sharpness"].nunique() == 2
    assert data.loc["after", ["ours_rollout_nfe", "ours_update_nfe"]].tolist() == [4, 2]
    assert data.loc["after", ["paper_rollout_nfe", "paper_update_nfe"]].tolist() == [25, 4]
    assert not pd.isna(data.loc["after", "gain_sharpness"])
    text = (run.results / "tables" / "small.md").read_text()
    assert "a small checkpoint with random weights" in text
    assert "| after" in text


LORA = {"rank": 4, "alpha": 8}


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_from_prompts_to_a_table(small: Small, tmp_path: Path, monkeypatch, lora):
    """All that is planned is planned by the package: settings, evaluation, rewards and the table's spec."""
    monkeypatch.chdir(tmp_path)
    run = chain(small, tmp_path, lora=lora)
    weights = load_file(run.train())
    assert any(".lora_" in name for name in weights) == (lora is not None)
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    for cell in (run.base, run.tuned):
        run.score(cell)
    before, after = (
        sorted((run.results / "images" / cell).rglob("*.png")) for cell in (run.base, run.tuned)
    )
    assert [len(before), len(after)] == [4, 8]  # hybrid inference, and the tuned model alone
    assert not {f.read_bytes() for f in before} & {f.read_bytes() for f in after}
    assert_table(run)


TRAINED = {"lora": {"lora": LORA}, "full": {"sharding": "fsdp", "gradient_checkpointing": True}}
BY_TWO = [(model, what) for model in ("flux", "sd3") for what in TRAINED]


@pytest.fixture(scope="module")
def by_two(flux: Small, sd3: Small, tmp_path_factory) -> dict[tuple[str, str], Chain]:
    """Trained by two processes, which are started once."""
    root, models = tmp_path_factory.mktemp("by_two"), {"flux": flux, "sd3": sd3}
    runs = {
        (model, what): chain(
            models[model], root / f"{model} {what}", precision="no", **TRAINED[what]
        )
        for model, what in BY_TWO
    }
    launch_all(2, [run.arguments() for run in runs.values()], root)
    return runs


@pytest.mark.slow
@pytest.mark.parametrize(("model", "what"), BY_TWO)
def test_two_processes_train_what_one_does(by_two, tmp_path: Path, monkeypatch, model, what):
    """Velocities differ by less than 1e-3 of what training changed. The weights are sharded where all are trained."""
    run = by_two[model, what]
    small = run.small
    one = chain(small, tmp_path, precision="no", **TRAINED[what]).train()
    cond = load_text_encoder(small.config(), CPU)(TEXTS)
    policies = [load_policy(small.config(), CPU) for _ in range(3)]
    policies[1].load_weights(one)
    policies[2].load_weights(run.model)
    noise = torch.randn(4, *policies[0].latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base, a, b = (p.velocity(noise, torch.tensor(0.7), cond) for p in policies)
    assert (a - b).abs().max() < 1e-3 * (a - base).abs().max()
    monkeypatch.chdir(run.root)
    for cell in (run.base, run.tuned):
        run.score(cell)
    assert_table(run)


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
    run = chain(small, tmp_path)
    model = run.train()
    export.run(settings=run.settings, model=model, output=tmp_path / "folder")
    command = [sys.executable, "-c", LOAD, str(tmp_path / "folder"), str(tmp_path / "found.pt")]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    found, trained = torch.load(tmp_path / "found.pt"), load_file(model)
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[n], t.bfloat16().float()) for n, t in trained.items())
    with pytest.raises(UserError, match=r"folder exists. Delete it or name another"):
        export.run(settings=run.settings, model=model, output=tmp_path / "folder")


def test_a_lora_file_needs_no_export(flux: Small, tmp_path: Path):
    run = chain(flux, tmp_path, lora=LORA)
    model = run.train()
    with pytest.raises(UserError, match=r"needs no export: `pipe.load_lora_weights\("):
        export.run(settings=run.settings, model=model, output=tmp_path / "folder")
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
    for size in (48, 96):
        evaluation = {"resolutions": {"flux": size}}
        run = chain(flux, tmp_path / f"{size}", evaluation=evaluation)
        run.make_text()
        pictures = run.generate(run.base).parent.rglob("*.png")
        assert [Image.open(picture).size for picture in pictures] == [(size, size)] * 4
