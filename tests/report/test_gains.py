import pandas as pd
import pytest

from mixgrpo.errors import UserError
from tests.report.results import column, entry, make_table, row, view, write_scores

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
    return make_table(results, kind="gains", rows=rows, columns=columns, **other).set_index("cell")


def test_gains_are_paired_and_in_units_of_the_base(results):
    data = make(results)
    assert data.index.to_list() == ["mixgrpo", "flash"]
    assert data.gain_a.to_list() == pytest.approx([2.0, 0.5])
    assert data.gain_se_prompts_a.to_list() == pytest.approx([1 / 3**0.5, 0.0])
    assert data.gain_b.mixgrpo == pytest.approx(2.0)
    assert data.gain_c.to_list() == pytest.approx([0.0, 0.0])
    assert data.p_mix.to_list() == [1.0, 1.0]


def test_trained_is_the_mean_over_the_rewards_of_each_image(results):
    data = make(results)
    # per image: (1 + 0) / 2, (2 + 3) / 2, (3 + 3) / 2
    each = pd.Series([0.5, 2.5, 3.0])
    assert data.gain_trained.mixgrpo == pytest.approx(2.0)
    assert data.gain_se_prompts_trained.mixgrpo == pytest.approx(each.std() / 3**0.5)
    assert data.gain_trained.flash == pytest.approx(0.5)
    assert "+2.000 +- 0.764" in (results / "out.md").read_text()


def test_the_reference_is_compared_in_what_it_trained_on(results):
    data = make(results)
    each = pd.Series([0.5 - 0.25, 2.5 - 0.25, 3.0 - 0.25])
    assert data.behind_reference_trained.flash == pytest.approx(each.mean())
    assert data.behind_reference_se_prompts_trained.flash == pytest.approx(each.std() / 3**0.5)
    assert pd.isna(data.behind_reference_trained.mixgrpo)
    assert "+1.750 +- 0.764" in (results / "out.md").read_text()


def test_several_seeds_have_an_error_over_seeds_and_one_over_prompts(results):
    write_scores(results / "scores", "mixgrpo", 3, BASE | {"a": [0.0, 4.0, 8.0]}, p_mix=1.0)
    write_scores(results / "scores", "flash", 3, BASE, p_mix=1.0)
    data = make(results, seeds=[0, 3])
    assert data.gain_a.mixgrpo == pytest.approx((2.0 + 1.0) / 2)
    assert data.gain_a_seed0.mixgrpo == pytest.approx(2.0)
    assert data.gain_a_seed3.mixgrpo == pytest.approx(1.0)
    assert data.gain_se_a_seed3.mixgrpo == pytest.approx(1 / 3**0.5)  # sd of 0, 1, 2 is 1
    assert data.gain_se_seeds_a.mixgrpo == pytest.approx(0.5)
    # over prompts: of (1 + 0) / 2, (2 + 1) / 2, (3 + 2) / 2
    assert data.gain_se_prompts_a.mixgrpo == pytest.approx(1 / 3**0.5)
    # seed 0: 1.75 as above; seed 3: mean of 0, .5, 1
    assert data.behind_reference_trained.flash == pytest.approx((1.75 + 0.5) / 2)
    assert data.behind_reference_se_seeds_trained.flash == pytest.approx((1.75 - 0.5) / 2)
    # over prompts: of (.25 + 0) / 2, (2.25 + .5) / 2, (2.75 + 1) / 2, sd sqrt(.8125)
    error = data.behind_reference_se_prompts_trained.flash
    assert error == pytest.approx((0.8125 / 3) ** 0.5)
    text = (results / "out.md").read_text()
    assert "+1.125 +- 0.625 (0.520)" in text
    assert "+1.500 +- 0.500 (0.577)" in text


def scores_of_a(values):
    return BASE | {"a": values}


@pytest.mark.parametrize(
    ("other", "mark"),
    [
        # the best gains 1, 2, 3 (mean 2, se .577); differences to it:
        ([0.0, 5.0, 12.0], "near"),  # 1, .5, -1: mean .167, se .601
        ([1.0, 5.0, 9.0], ""),  # .5, .5, .5: mean .5, se 0, though within the best's own error
    ],
)
def test_near_the_best_is_told_by_the_paired_difference(results, other, mark):
    write_scores(results / "scores", "best", 0, scores_of_a([2.0, 6.0, 10.0]), p_mix=1.0)
    write_scores(results / "scores", "other", 0, scores_of_a(other), p_mix=1.0)
    rows = [row("best", "Best", ["a"]), row("other", "Other", ["a"])]
    data = make(results, rows=rows, columns=[column("a")])
    differences = (pd.Series([2.0, 6.0, 10.0]) - pd.Series(other)) / SD_A
    assert data.behind_best_a.other == pytest.approx(differences.mean())
    assert data.behind_best_se_prompts_a.other == pytest.approx(differences.std() / 3**0.5)
    html = (results / "out.html").read_text()
    assert '<td class="best">+2.000 &plusmn; 0.577</td>' in html
    assert ('<span class="near">+' in html) == (mark == "near")
    assert "best" in (results / "out.md").read_text()  # no reference: compared with the best


def test_what_rows_trained_on_is_compared_only_where_it_is_the_same(results):
    for cell, scale in (("x1", 1.0), ("x2", 2.0), ("y1", 3.0)):
        gained = [old + scale for old in BASE["a"]]
        write_scores(results / "scores", cell, 0, BASE | {"a": gained}, p_mix=1.0)
    rows = [row("x1", "x1", ["a"]), row("x2", "x2", ["a"]), row("y1", "y1", ["a", "b"])]
    data = make(results, rows=rows)
    assert data.behind_best_trained.x1 == pytest.approx(0.5)
    assert pd.isna(data.behind_best_trained.y1)
    assert data.behind_best_a[["x1", "x2"]].to_list() == pytest.approx([1.0, 0.5])
    assert pd.isna(data.behind_best_a.y1)
    assert data.best_of_group.to_dict() == {"x1": False, "x2": True, "y1": False}


def test_each_view_has_its_own_base_prompts_and_cells(results):
    scores = results / "scores"
    other = {"a": [0.0, 1.0, 2.0]}
    write_scores(scores, "base", 0, other, p_mix=0.0, dataset="pick")
    write_scores(scores, "pick_mixgrpo", 0, {"a": [3.0, 4.0, 5.0]}, p_mix=1.0, dataset="pick")
    views = [view("One", dataset="hpd"), view("Two", dataset="pick")]
    rows = [row("", "Mix", entries=[entry("mixgrpo", ["a"]), entry("pick_mixgrpo", ["a"])])]
    data = make(results, rows=rows, columns=[column("a")], views=views)
    assert data.view.to_dict() == {"mixgrpo": "One", "pick_mixgrpo": "Two"}
    assert data.gain_a.to_list() == pytest.approx([2.0, 3.0])
    text = (results / "out.md").read_text()
    assert "## One: gain over the untrained model (hpd test, p_mix = 1)" in text
    assert "untrained model, Two: mean score (sd over prompts): a 1.000 (1.000)." in text


def test_an_entry_may_be_paired_with_another_base(results):
    write_scores(results / "scores", "base_sd3", 0, {"a": [0.0, 4.0, 8.0]}, p_mix=0.0)
    rows = [row("flash", "Flash", ["a"], base="base_sd3")]
    data = make(results, rows=rows, columns=[column("a")])
    assert data.gain_a.flash == pytest.approx((1 - 1 - 3) / 3 / 4.0)


def test_a_missing_reward_is_blank_and_said(results):
    (results / "scores/flash/seed0/index.json").unlink()
    write_scores(results / "scores", "flash", 0, {"b": BASE["b"], "c": BASE["c"]}, p_mix=1.0)
    data = make(results)
    assert pd.isna(data.gain_a.flash)
    assert pd.isna(data.gain_trained.flash)
    assert pd.isna(data.behind_reference_trained.flash)
    text = (results / "out.md").read_text()
    assert "Flash: no gain in a, hpd test at p_mix = 1." in text
    assert "Flash: no gain in what it trained on" in text


def test_columns_say_whether_rows_trained_on_them(results):
    make(results)
    lines = (results / "out.md").read_text().splitlines()
    head = next(line for line in lines if line.startswith("|") and "held out" in line)
    assert [part.strip() for part in head.strip("|").split("|")] == [
        "",
        "mean of",
        "MixGRPO",
        "trained",
        "",
        "held out",
    ]


def test_a_sweep_marks_the_best_value_of_each_group(results):
    write_scores(results / "scores", "s1", 0, BASE | {"a": [1.0, 3.0, 5.0]}, p_mix=1.0)
    write_scores(results / "scores", "s2", 0, BASE | {"a": [2.0, 4.0, 6.0]}, p_mix=1.0)
    write_scores(results / "scores", "t1", 0, BASE, p_mix=1.0)
    write_scores(results / "scores", "t3", 0, BASE | {"a": [-1.0, 1.0, 3.0]}, p_mix=1.0)
    rows = [
        row("s1", "s, 1", ["a"], group="s", value=1e-5),
        row("s2", "s, 2", ["a"], group="s", value=2e-5),
        row("t1", "t, 1", ["a"], group="t", value=1e-5),
        row("t2", "t, 2", ["a"], group="t", value=2e-5),
        row("t3", "t, 3", ["a"], group="t", value=3e-5),
    ]
    data = make(results, rows=rows, table="sweep")
    best = data.index[data.best_of_group].to_list()
    assert best == ["s2", "t1"]
    assert data.value.to_list() == [1e-5, 2e-5, 1e-5, 2e-5, 3e-5]
    text = (results / "out.md").read_text()
    assert "| **s, 2** " in text
    assert "**s, 1**" not in text
    assert "t, 2 " in text


def test_rows_must_say_what_they_trained_on(results):
    with pytest.raises(UserError, match="mixgrpo says nothing of the rewards it trained on"):
        make(results, rows=[row("mixgrpo", "MixGRPO", base="base")])


def test_gains_need_a_base(results):
    (results / "scores/base/seed0/index.json").unlink()
    with pytest.raises(UserError, match="base has no score on hpd test"):
        make(results)


def test_gains_need_a_base_that_varies(results):
    write_scores(results / "scores", "base", 0, BASE | {"c": [1.0, 1.0, 1.0]}, p_mix=0.0)
    with pytest.raises(UserError, match="c: the base's 3 scores have no spread"):
        make(results)
