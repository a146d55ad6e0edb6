"""Pictures and scores: what is made, what is kept, what is refused."""

import csv
import hashlib
import json
import math
import statistics
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from mixgrpo.algorithm.schedule import shifted_sigmas
from mixgrpo.errors import UserError
from mixgrpo.files import fingerprint
from mixgrpo.imagesets import load_images, read_index
from mixgrpo.models import load_policy
from mixgrpo.prompts import read_embeddings, read_prompts
from mixgrpo.rewards import CheckedReward
from mixgrpo.stages import generate, score, train
from mixgrpo.training.hybrid import sample_hybrid
from mixgrpo.training.randomness import normal
from tests.rewards.small_pick_score import make_pick_score

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cell(world, tmp_path_factory) -> Path:
    """A trained cell's folder: settings.json, model.safetensors."""
    folder = tmp_path_factory.mktemp("cell")
    train.run(
        settings=world.write_settings(folder / "settings.json"),
        prompts=world.prompts,
        embeddings=world.embeddings,
        checkpoints=folder / "checkpoints",
        model=folder / "model.safetensors",
        metrics=folder / "metrics.jsonl",
    )
    return folder


def make(world, cell: Path, folder: Path, *p_mix: float, **changes) -> Path:
    plan = {
        "num_steps": 5,
        "shift": 3.0,
        "seed": 3,
        "batch_size": 5,
        "sets": [{"dataset": "tiny_hpd", "split": "test", "p_mix": p} for p in p_mix],
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(plan))
    generate.run(
        settings=cell / "settings.json",
        evaluation=folder / "evaluation.json",
        model=cell / "model.safetensors",
        prompts=world.root / "prompts",
        embeddings=world.root / "embeddings" / "flux",
        index=folder / "index.json",
    )
    return folder / "index.json"


def rewards_file(world, folder: Path, *names: str) -> Path:
    paths = {
        name: {"path": str(world.root / "models" / name)}
        for name in ("tiny_hps", "tiny_image_reward")
    }
    chosen = {name: paths.get(name, {"path": None}) for name in names}
    path = folder / "rewards.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(chosen))
    return path


def test_every_prompt_has_a_picture_named_in_the_manifest(world, cell, tmp_path):
    index = make(world, cell, tmp_path, 0.4, 1.0)
    prompts = read_prompts(world.root / "prompts" / "tiny_hpd_test.tsv")
    sets = read_index(index, "sets")
    assert [(s["p_mix"], s["num_images"]) for s in sets] == [(0.4, 8), (1.0, 8)]
    for image_set in sets:
        folder = tmp_path / image_set["directory"]
        manifest = json.loads((folder / "manifest.json").read_text())
        assert [i["prompt_id"] for i in manifest["images"]] == [p.id for p in prompts]
        assert load_images([folder / i["file"] for i in manifest["images"]]).shape == (8, 3, 32, 32)


def test_hybrid_inference_is_the_naive_walk_for_every_share(world, cell):
    """round(p T) steps by the tuned model, then the base; equal to fp32 round-off."""
    config = world.settings()
    base, policy = load_policy(config.model, CPU), load_policy(config.model, CPU)
    policy.load_weights(cell / "model.safetensors")
    prompts = read_prompts(world.prompts)
    cond = read_embeddings(world.embeddings, prompts)
    noise = torch.stack([normal(policy.latent_shape, p.id) for p in prompts])
    sigmas, shares = shifted_sigmas(10, 3.0), (0.0, 0.24, 0.8, 1.0)
    found = sample_hybrid(policy, base, cond, sigmas, noise=noise, p_mix=shares)
    for share, latents in zip(shares, found, strict=True):
        x = noise
        with torch.no_grad():
            for i in range(10):
                model = policy if i < round(share * 10) else base
                x = x + model.velocity(x, sigmas[i], cond) * float(sigmas[i + 1] - sigmas[i])
        torch.testing.assert_close(latents, x, rtol=0, atol=1e-5)
    assert not torch.equal(found[0], found[3])
    assert base.num_evaluations > 0


def test_plain_diffusers_draws_our_pixels(world):
    """FluxPipeline from the same directory, same noise and sigmas: within 1e-5 of a pixel in [0, 1]."""
    config = world.settings()
    policy = load_policy(config.model, CPU)
    prompts = read_prompts(world.prompts)
    cond = read_embeddings(world.embeddings, prompts)
    noise = torch.stack([normal(policy.latent_shape, p.id) for p in prompts])
    (latents,) = sample_hybrid(
        policy, policy, cond, shifted_sigmas(5, 3.0), noise=noise, p_mix=[1.0]
    )
    pipe = FluxPipeline.from_pretrained(config.model.path)
    theirs = pipe(
        prompt=[p.text for p in prompts],
        height=32,
        width=32,
        num_inference_steps=5,
        sigmas=[1 - i / 5 for i in range(5)],
        guidance_scale=3.5,
        max_sequence_length=pipe.tokenizer_2.model_max_length,
        latents=noise,
        output_type="pt",
    ).images
    torch.testing.assert_close(theirs, policy.decode(latents), rtol=0, atol=1e-5)


def test_tuned_weights_load_in_plain_diffusers(world, cell):
    """The file that training writes is a state dict of FluxTransformer2DModel."""
    from diffusers import FluxTransformer2DModel
    from safetensors.torch import load_file

    network = FluxTransformer2DModel.from_pretrained(world.root / "models/flux/transformer")
    network.load_state_dict(load_file(cell / "model.safetensors"), strict=True)


def test_adding_a_share_makes_only_that_one(world, cell, tmp_path):
    index = make(world, cell, tmp_path, 1.0)
    (first,) = read_index(index, "sets")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / first["directory"]).iterdir()}
    make(world, cell, tmp_path, 0.4, 1.0)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / first["directory"]).iterdir()} == before


def test_interrupted_generation_keeps_its_pictures(world, cell, tmp_path, monkeypatch):
    calls = []

    def stop_at_second_batch(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample_hybrid(*args, **kwargs)

    monkeypatch.setattr(generate, "sample_hybrid", stop_at_second_batch)
    with pytest.raises(KeyboardInterrupt):
        make(world, cell, tmp_path, 1.0)
    kept = list(tmp_path.rglob("*.png"))
    assert len(kept) == 5
    times = sorted(p.stat().st_mtime_ns for p in kept)
    monkeypatch.undo()
    make(world, cell, tmp_path, 1.0)
    undisturbed = make(world, cell, tmp_path / "again", 1.0)
    names = sorted(p.name for p in tmp_path.glob("tiny_hpd_test/p1.00/*.png"))
    assert len(names) == 8
    for name in names:
        a = tmp_path / "tiny_hpd_test/p1.00" / name
        assert a.read_bytes() == (undisturbed.parent / "tiny_hpd_test/p1.00" / name).read_bytes()
    assert (
        sorted(p.stat().st_mtime_ns for p in tmp_path.glob("tiny_hpd_test/p1.00/*.png"))[:5]
        == times
    )


def test_other_noise_or_weights_are_other_pictures(world, cell, tmp_path):
    first = read_index(make(world, cell, tmp_path, 1.0), "sets")[0]["key"]
    assert read_index(make(world, cell, tmp_path, 1.0, seed=4), "sets")[0]["key"] != first


def test_noise_depends_on_seed_and_prompt_alone(world, cell, tmp_path):
    """Batches of another size draw the same pictures, but for a last bit of round-off."""
    a = make(world, cell, tmp_path / "a", 1.0)
    b = make(world, cell, tmp_path / "b", 1.0, batch_size=8)
    files = sorted(p.name for p in (a.parent / "tiny_hpd_test/p1.00").glob("*.png"))
    left, right = (
        load_images([i.parent / "tiny_hpd_test/p1.00" / f for f in files]) for i in (a, b)
    )
    assert (left - right).abs().max() <= 1 / 255 + 1e-6


def test_scores_are_per_image_with_means_and_standard_errors(world, cell, tmp_path):
    images = make(world, cell, tmp_path / "images", 1.0)
    index = tmp_path / "scores" / "index.json"
    rewards = rewards_file(world, tmp_path, "tiny_hps", "colorfulness")
    score.run(images=images, rewards=rewards, index=index)
    entries = read_index(index, "scores")
    assert [(e["reward"], e["num_images"]) for e in entries] == [
        ("tiny_hps", 8),
        ("colorfulness", 8),
    ]
    for entry in entries:
        header, *lines = (index.parent / entry["file"]).read_text().splitlines()
        assert json.loads(header.removeprefix("# "))["reward"] == entry["reward"]
        values = [float(row["score"]) for row in csv.DictReader(lines)]
        assert entry["mean"] == pytest.approx(statistics.fmean(values))
        assert entry["standard_error"] == pytest.approx(statistics.stdev(values) / math.sqrt(8))


def test_a_new_reward_scores_only_itself_and_a_cut_file_is_made_again(world, cell, tmp_path):
    images = make(world, cell, tmp_path / "images", 1.0)
    index = tmp_path / "scores" / "index.json"
    score.run(images=images, rewards=rewards_file(world, tmp_path, "tiny_hps"), index=index)
    hps = index.parent / "tiny_hpd_test/p1.00/tiny_hps.csv"
    text, time = hps.read_text(), hps.stat().st_mtime_ns
    both = rewards_file(world, tmp_path, "tiny_hps", "sharpness")
    score.run(images=images, rewards=both, index=index)
    assert hps.stat().st_mtime_ns == time
    hps.write_text("\n".join(text.splitlines()[:6]) + "\n")
    score.run(images=images, rewards=both, index=index)
    assert hps.read_text() == text


def test_interrupted_scoring_goes_on_with_the_next_shard(world, cell, tmp_path, monkeypatch):
    images = make(world, cell, tmp_path / "images", 1.0)
    rewards = rewards_file(world, tmp_path, "sharpness")
    score.run(images=images, rewards=rewards, index=tmp_path / "whole/index.json")
    monkeypatch.setattr(score, "SHARD", 3)
    original, sizes = CheckedReward.score, []

    def interrupted(self, pixels, prompts):
        sizes.append(len(pixels))
        if len(sizes) == 2:
            raise KeyboardInterrupt
        return original(self, pixels, prompts)

    monkeypatch.setattr(CheckedReward, "score", interrupted)
    index = tmp_path / "scores/index.json"
    with pytest.raises(KeyboardInterrupt):
        score.run(images=images, rewards=rewards, index=index)
    score.run(images=images, rewards=rewards, index=index)
    assert sizes == [3, 3, 3, 2]
    (file,) = (tmp_path / "scores/tiny_hpd_test/p1.00").iterdir()
    whole = tmp_path / "whole/tiny_hpd_test/p1.00/sharpness.csv"
    assert file.read_text() == whole.read_text()


def test_a_score_file_names_version_checkpoint_checksum_and_scale(world, cell, tmp_path):
    images = make(world, cell, tmp_path / "images", 1.0)
    path = make_pick_score(tmp_path / "pick_score")
    rewards = tmp_path / "rewards.json"
    rewards.write_text(json.dumps({"pick_score": {"path": path, "options": {"dtype": "bfloat16"}}}))
    score.run(images=images, rewards=rewards, index=tmp_path / "scores/index.json")
    (file,) = (tmp_path / "scores/tiny_hpd_test/p1.00").iterdir()
    facts = json.loads(file.read_text().splitlines()[0].removeprefix("# "))
    weights = (tmp_path / "pick_score/model.safetensors").read_bytes()
    assert facts["sha256"] == hashlib.sha256(weights).hexdigest()
    assert facts["checkpoint"] == path
    assert facts["reward"] == "pick_score"
    assert facts["options"] == {"dtype": "bfloat16"}
    assert {"version", "scale", "backend"} <= facts.keys()


def test_a_picture_that_cannot_be_read_is_named(world, cell, tmp_path):
    images = make(world, cell, tmp_path / "images", 1.0)
    victim = next((tmp_path / "images/tiny_hpd_test/p1.00").glob("*.png"))
    victim.write_bytes(victim.read_bytes()[:40])
    with pytest.raises(UserError, match=victim.name):
        score.run(
            images=images,
            rewards=rewards_file(world, tmp_path, "sharpness"),
            index=tmp_path / "scores/index.json",
        )


def test_weights_of_another_model_are_refused(world, cell, tmp_path):
    broken = tmp_path / "model.safetensors"
    broken.write_bytes((cell / "model.safetensors").read_bytes()[:1000])
    policy = load_policy(world.settings().model, CPU)
    with pytest.raises(UserError, match=r"not the weights of this transformer"):
        policy.load_weights(broken)


def test_fingerprint_follows_content_not_time(tmp_path):
    (tmp_path / "a").write_text("x")
    first = fingerprint(tmp_path)
    (tmp_path / "a").touch()
    assert fingerprint(tmp_path) == first
    (tmp_path / "a").write_text("y")
    assert fingerprint(tmp_path) != first
