"""Overhead: counts that are real, rows that are comparable."""

import json

import pytest

from mixgrpo.algorithm.nfe import rollout_evaluations
from mixgrpo.stages import overhead
from mixgrpo.training.side_by_side import positions


def test_positions_stand_for_the_whole_schedule():
    assert positions(60) == [7, 22, 37, 52]
    starts = [position * 5 // 25 for position in positions(60)]  # tau = 25 on the paper's clock
    assert sum(starts) / 4 == sum(range(12)) / 12
    assert all(0 <= p < 4 for p in positions(4))


@pytest.fixture(scope="module")
def report(world, tmp_path_factory):
    root = tmp_path_factory.mktemp("overhead")
    cells = {
        "mixgrpo": {},
        "flash": {"sampling": {"tail_ratio": 0.4}, "window": {"interval": 20}},
        "flash_star": {"sampling": {"tail_ratio": 0.2}, "window": {"strategy": "frozen"}},
        "dancegrpo": {
            "sampling": {"noise": "dance_grpo", "eta": 0.3, "sde_steps": "all_but_last"},
            "trained_steps": {"choice": "random", "count": 14},
        },
    }
    sizes = {"num_iterations": 60, "window_clock": 5, "num_prompts": 1, "num_updates": 2}
    paths = [
        world.write_settings(
            root / "runs" / name / "seed0" / "settings.json", training=sizes, **cell
        )
        for name, cell in cells.items()
    ]
    output, plan = root / "overhead.json", root / "plan.json"
    plan.write_text(json.dumps({"num_positions": 3}))
    overhead.run(
        settings=paths,
        prompts=world.prompts,
        embeddings=world.embeddings,
        output=output,
        plan=plan,
    )
    return json.loads(output.read_text())


def test_nfe_columns_are_the_paper_s(report):
    rows = {name: row["sharing_on"] for name, row in report["rows"].items()}
    assert {n: (round(r["rollout_nfe"]), r["update_nfe"]) for n, r in rows.items()} == {
        "mixgrpo": (25, 4),
        "flash": (16, 4),
        "flash_star": (8, 4),
        "dancegrpo": (25, 14),
    }


def test_without_sharing_the_count_is_the_nfe(report):
    for row in report["rows"].values():
        naive = row["sharing_off"]
        assert naive["counted_update_evaluations"] == naive["update_nfe"]
    off = {
        name: row["sharing_off"]["counted_rollout_evaluations"]
        for name, row in report["rows"].items()
    }
    assert off["mixgrpo"] == off["dancegrpo"] == 25
    assert off["flash_star"] == 8


def test_sharing_saves_what_the_formula_says(report):
    on = report["rows"]["flash_star"]["sharing_on"]["counted_rollout_evaluations"]
    assert on == rollout_evaluations(8, 0, 4, sharing=True) / 4
    starts = [position * 5 // 25 for position in (10, 30, 50)]  # three positions of 60
    expected = sum(rollout_evaluations(25, start, 4, sharing=True) / 4 for start in starts) / 3
    assert report["rows"]["mixgrpo"]["sharing_on"]["counted_rollout_evaluations"] == pytest.approx(
        expected
    )


def test_every_row_is_timed(report):
    for row in report["rows"].values():
        for timed in row.values():
            assert timed["iteration_seconds"] > 0
            assert timed["image_seconds"] == pytest.approx(timed["rollout_seconds"] / 4)
            parts = timed["rollout_seconds"] + timed["reward_seconds"] + timed["update_seconds"]
            assert parts == pytest.approx(timed["iteration_seconds"], rel=0.5)
