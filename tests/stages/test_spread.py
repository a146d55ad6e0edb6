"""How far a group parts by where its one SDE step is."""

import json

import pytest
import torch

from mixgrpo.stages import spread
from mixgrpo.stages.spread import group_spread, plan_single


@pytest.fixture(scope="module")
def report(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("spread")
    settings = world.write_settings(root / "settings.json", sampling={"num_steps": 6})
    arguments = {"settings": settings, "prompts": world.prompts, "embeddings": world.embeddings}
    spread.run(**arguments, output=root / "a.json")
    spread.run(**arguments, output=root / "b.json")
    assert (root / "a.json").read_bytes() == (root / "b.json").read_bytes()
    return json.loads((root / "a.json").read_text())


def test_every_position_but_the_last_is_measured(report):
    assert [row["step"] for row in report["positions"]] == list(range(5))
    assert (report["num_prompts"], report["group_size"], report["num_steps"]) == (8, 8, 6)
    assert (report["model"], report["schedule"]) == ("flux", "shifted")


def test_noise_parts_the_images_and_the_more_of_it_the_further(report):
    rows = report["positions"]
    assert all(0 < row["spread"] < 0.5 for row in rows)
    assert all(0 < row["standard_error"] < row["spread"] for row in rows)
    sigmas = [row["sigma"] for row in rows]
    assert sigmas[0] == 1
    assert sigmas == sorted(sigmas, reverse=True)
    # 1: shifted u = 5 / 6; g = 0.7 sqrt(s / (1 - s)) with s = 15 / 16
    assert rows[1]["noise_std"] == pytest.approx(0.7 * (15 * (15 / 16 - 12 / 14)) ** 0.5)


def test_one_step_is_an_sde_step_whatever_the_cell_samples(world):
    for sampling in ({"sde_steps": "all_but_last"}, {"tail_ratio": 0.4}):
        plan = plan_single(world.settings(sampling=sampling), 3)
        assert (plan.sde_steps, len(plan.tail), len(plan.sigmas)) == (range(3, 4), 0, 26)


def test_spread_is_the_distance_to_the_groups_own_mean():
    images = torch.tensor([0.0, 1.0, 0.4, 0.4]).view(2, 2, 1, 1, 1).expand(2, 2, 3, 4, 4)
    torch.testing.assert_close(group_spread(images), torch.tensor([0.5, 0.0]))
