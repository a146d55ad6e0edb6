import pandas as pd
import pytest

from mixgrpo.errors import UserError
from mixgrpo.stages import table
from tests.report.results import column, row, write_scores, write_table_spec

BASE = {"a": [0.0, 2.0, 4.0], "b": [10.0, 10.0, 40.0], "c": [1.0, 2.0, 3.0]}
SD_A, SD_B = 2.0, 300**0.5
COLUMNS = [column("a"), column("b"), column("c")]
ROWS = [
    row("base", "FLUX"),
    row("mixgrpo", "MixGRPO", ["a", "b"]),
    row("flash", "Flash", ["a"]),
]


@pytest.fixture
def results(tmp_path):
    scores = tmp_path / "scores"
    write_scores(scores, "base", 0, BASE, p_mix=0.0)
    # d of a: 1, 2, 3; of b: 0, 3, 3 in units of sd_b / 10
    mixgrpo = {"a": [2.0, 6.0, 10.0], "b": [10.0, 10.0 + 3 * SD_B, 40.0 + 3 * SD_B]}
    write_scores(scores, "mixgrpo", 0, mixgrpo | {"c": [1.0, 2.0, 3.0]}, p_mix=1.0)
    write_scores(scores, "flash", 0, BASE | {"a": [1.0, 3.0, 5.0]}, p_mix=1.0)
    return tmp_path


def make(results, *, rows=ROWS, columns=COLUMNS, **other):
    spec = write_table_spec(
        results / "spec.json",
        **({"kind": "gains", "p_mix": 1.0, "columns": columns, "rows": rows} | other),
    )
    table.run(
        spec=spec,
        scores=results / "scores",
        csv=results / "out.csv",
        md=results / "out.md",
        tex=results / "out.tex",
    )
    return pd.read_csv(results / "out.csv").set_index("cell")


def test_gains_are_paired_and_in_units_of_the_base(results):
    data = make(results)
    assert data.index.to_list() == ["mixgrpo", "flash"]
    assert data.gain_a.to_list() == pytest.approx([2.0, 0.5])
    assert data.se_prompts_a.to_list() == pytest.approx([1 / 3**0.5, 0.0])
    assert data.gain_b.mixgrpo == pytest.approx(2.0)
    assert data.gain_c.to_list() == pytest.approx([0.0, 0.0])
    assert data.mean_a.mixgrpo == pytest.approx(6.0)


def test_trained_is_the_mean_over_the_rewards_of_each_image(results):
    data = make(results)
    # per image: (1 + 0) / 2, (2 + 3) / 2, (3 + 3) / 2
    each = pd.Series([0.5, 2.5, 3.0])
    assert data.gain_trained.mixgrpo == pytest.approx(2.0)
    assert data.se_prompts_trained.mixgrpo == pytest.approx(each.std() / 3**0.5)
    assert data.gain_trained.flash == pytest.approx(0.5)
    text = (results / "out.md").read_text()
    assert "+2.000 +- 0.764 (2.6)" in text


def test_the_difference_is_of_what_mixgrpo_trained_on(results):
    data = make(results)
    each = pd.Series([0.5 - 0.25, 2.5 - 0.25, 3.0 - 0.25])
    assert data.difference.flash == pytest.approx(each.mean())
    assert data.se_prompts_difference.flash == pytest.approx(each.std() / 3**0.5)
    assert pd.isna(data.difference.mixgrpo)
    assert "+1.750 (0.764)" in (results / "out.md").read_text()


def test_several_seeds_have_an_error_over_seeds(results):
    write_scores(results / "scores", "mixgrpo", 3, BASE | {"a": [0.0, 4.0, 8.0]}, p_mix=1.0)
    write_scores(results / "scores", "flash", 3, BASE, p_mix=1.0)
    data = make(results, seeds=[0, 3])
    assert data.gain_a.mixgrpo == pytest.approx((2.0 + 1.0) / 2)
    assert data.gain_a_seed0.mixgrpo == pytest.approx(2.0)
    assert data.gain_a_seed3.mixgrpo == pytest.approx(1.0)
    assert data.se_a_seed3.mixgrpo == pytest.approx(1 / 3**0.5)  # sd of 0, 1, 2 is 1
    assert data.se_seeds_a.mixgrpo == pytest.approx(0.5)
    # over prompts: of (1 + 0) / 2, (2 + 1) / 2, (3 + 2) / 2
    assert data.se_prompts_a.mixgrpo == pytest.approx(1 / 3**0.5)
    # seed 0: 1.75 as above; seed 3: mean of 0, .5, 1
    assert data.difference.flash == pytest.approx((1.75 + 0.5) / 2)
    assert data.se_seeds_difference.flash == pytest.approx((1.75 - 0.5) / 2)
    # over prompts: of (.25 + 0) / 2, (2.25 + .5) / 2, (2.75 + 1) / 2, sd sqrt(.8125)
    assert data.se_prompts_difference.flash == pytest.approx((0.8125 / 3) ** 0.5)
    text = (results / "out.md").read_text()
    assert "+1.125 (0.520; 0.625)" in text
    assert "+1.500 +- 0.500" in text


def test_a_missing_reward_is_blank_and_said(results):
    write_scores(results / "scores", "flash", 0, {"b": BASE["b"], "c": BASE["c"]}, p_mix=1.0)
    data = make(results)
    assert pd.isna(data.gain_a.flash)
    assert pd.isna(data.gain_trained.flash)
    assert pd.isna(data.difference.flash)
    text = (results / "out.md").read_text()
    assert "Flash: no gain in a, hpd test at p_mix = 1." in text
    assert "Flash: no gain in what it trained on" in text


def test_columns_say_whether_rows_trained_on_them(results):
    make(results)
    head = next(
        line for line in (results / "out.md").read_text().splitlines() if "held out" in line
    )
    assert [part.strip() for part in head.strip("|").split("|")] == ["", "trained", "", "held out"]


def test_a_sweep_marks_the_best_value_of_each_group(results):
    write_scores(results / "scores", "s1", 0, BASE | {"a": [1.0, 3.0, 5.0]}, p_mix=1.0)
    write_scores(results / "scores", "s2", 0, BASE | {"a": [2.0, 4.0, 6.0]}, p_mix=1.0)
    write_scores(results / "scores", "t1", 0, BASE, p_mix=1.0)
    rows = [
        row("s1", "s, 1", ["a"], group="s", value=1e-5),
        row("s2", "s, 2", ["a"], group="s", value=2e-5),
        row("t1", "t, 1", ["a"], group="t", value=1e-5),
        row("t2", "t, 2", ["a"], group="t", value=2e-5),
    ]
    data = make(results, rows=rows, table="sweep")
    assert data.best_of_group.to_dict() == {"s1": False, "s2": True, "t1": True, "t2": False}
    assert data.value.to_list() == [1e-5, 2e-5, 1e-5, 2e-5]
    text = (results / "out.md").read_text()
    assert "| **s, 2** " in text
    assert "**s, 1**" not in text
    assert "t, 2 [1]" in text


@pytest.mark.parametrize(
    ("rows", "message"),
    [([row("mixgrpo", "MixGRPO")], "mixgrpo say nothing of the rewards they trained on")],
)
def test_rows_must_say_what_they_trained_on(results, rows, message):
    with pytest.raises(UserError, match=message):
        make(results, rows=rows)


def test_gains_need_a_base(results):
    (results / "scores/base/seed0/index.json").unlink()
    with pytest.raises(UserError, match="the base has no score on hpd test"):
        make(results)


def test_gains_need_a_base_that_varies(results):
    write_scores(results / "scores", "base", 0, BASE | {"c": [1.0, 1.0, 1.0]}, p_mix=0.0)
    with pytest.raises(UserError, match="c: the base's 3 scores have no spread"):
        make(results)
