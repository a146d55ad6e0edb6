"""Tables from made-up scores: every number by hand, every format, every file that may be wrong.

Longer than 300 lines: one small set of scores that all these tests share and break.
"""

import json
from pathlib import Path

import pandas as pd
import pytest

from mixgrpo.errors import UserError
from mixgrpo.stages import table
from tests.report.results import (
    KINDS,
    column,
    entry,
    make_table,
    measurement,
    row,
    view,
    write_metrics,
    write_overhead,
    write_scores,
)

GOLDEN = Path(__file__).parent / "golden"
ROOT_2 = 2**0.5
PUBLISHED = (
    "method,nfe_old,time,hps,ood_hps\nFLUX,,,0.313,0.3\nDance,25,200.0,0.356,0.4\n"
    "Mix*,16 (Avg),50.0,0.367,0.5\n"
)
HPS = column("hps_v2_1", "tiny_hps", header="HPS-v2.1", published_column="hps")
COST = [
    column("rollout_nfe", published_column="nfe_old", digits=1),
    column("iteration_seconds", published_column="time"),
]
ROWS = [
    row("base", "FLUX", published_row=0),
    row("dancegrpo", "Dance & co", ["tiny_hps"], published_row=1),
    row("mixgrpo", "Mix*", ["tiny_hps"], published_row=2),
]


@pytest.fixture
def results(tmp_path):
    """base: mean 1, se 1/sqrt 3; DanceGRPO 2.8 with se 0.2; MixGRPO 3 with se 1 (sd 2 over 4)."""
    (tmp_path / "published.csv").write_text(PUBLISHED)
    scores = tmp_path / "scores"
    write_scores(scores, "base", 0, {"tiny_hps": [0.0, 0.0, 2.0, 2.0]}, p_mix=0.0)
    write_scores(scores, "dancegrpo", 0, {"tiny_hps": [2.4, 2.8, 2.8, 3.2]})
    write_scores(scores, "dancegrpo", 0, {"tiny_hps": [1.0, 1.0, 3.0, 3.0]}, p_mix=1.0)
    write_scores(scores, "mixgrpo", 0, {"tiny_hps": [1.0, 5.0, 1.5, 4.5]})
    write_scores(scores, "mixgrpo", 0, {"tiny_hps": [1.0, 2.0, 3.0, 4.0]}, p_mix=1.0)
    write_overhead(
        tmp_path / "overhead.json",
        {
            "dancegrpo": (measurement(4.0, 24.0, 12.0), measurement(5.0, 25.0, 14.0)),
            "mixgrpo": (measurement(2.0, 15.0, 3.0), measurement(2.5, 25.0, 4.0)),
        },
    )
    return tmp_path


def counted(results, cell, seed=0, *, nfe=(25.0, 25.0), made=(24.0, 22.0), update=14):
    """A cell's metrics of two iterations."""
    return str(
        write_metrics(
            results / f"runs/{cell}/seed{seed}/metrics.jsonl",
            {"tiny_hps": [0.0, 0.0]},
            rollout_nfe=nfe,
            update_nfe=[update, update],
            rollout_evaluations=made,
            update_evaluations=[update - 1, update - 1],
        )
    )


def make(results, *, columns=None, rows=None, overhead="overhead.json", **other):
    if rows is None:
        dance, mix = (
            counted(results, "dancegrpo"),
            counted(results, "mixgrpo", nfe=(19, 13), update=4),
        )
        rows = [ROWS[0], with_metrics(ROWS[1], dance), with_metrics(ROWS[2], mix)]
    return make_table(
        results,
        columns=columns or [*COST, HPS],
        rows=rows,
        overhead=results / overhead if overhead else None,
        **({"published": str(results / "published.csv")} | other),
    ).set_index("cell")


def with_metrics(row, *paths):
    return row | {"entries": [row["entries"][0] | {"metrics": list(paths)}]}


def test_means_and_errors_over_prompts(results):
    data = make(results)
    assert data.ours_tiny_hps.to_list() == pytest.approx([1.0, 2.8, 3.0])
    assert data.se_prompts_tiny_hps.base == pytest.approx(1 / 3**0.5)
    assert data.se_prompts_tiny_hps.dancegrpo == pytest.approx((0.32 / 3) ** 0.5 / 2)
    assert data.paper_hps_v2_1.to_list() == [0.313, 0.356, 0.367]
    assert data.num_images.to_list() == [4, 4, 4]
    assert data.p_mix.to_list() == [0.0, 0.8, 0.8]


def test_ratios_measured_predicted_and_published(results):
    data = make(results)
    mixgrpo = data.loc["mixgrpo"]
    assert mixgrpo.ratio_iteration_seconds_shared == pytest.approx(2.0 / 4.0)
    assert mixgrpo.ratio_iteration_seconds_unshared == pytest.approx(2.5 / 5.0)
    predicted = (15 + 3 * 3) / (24 + 3 * 12)
    assert mixgrpo.predicted_ratio_iteration_seconds_shared == pytest.approx(predicted)
    predicted = (25 + 3 * 4) / (25 + 3 * 14)
    assert mixgrpo.predicted_ratio_iteration_seconds_unshared == pytest.approx(predicted)
    assert mixgrpo.paper_ratio_iteration_seconds == pytest.approx(50 / 200)
    assert data.loc["dancegrpo"].filter(regex="ratio_").to_list() == [1.0] * 5
    assert data.loc["base"].filter(regex="ratio_").isna().all()


def test_the_ratio_of_an_image_counts_its_rollout_only(results):
    data = make(results, columns=[column("image_seconds"), HPS])
    assert data.predicted_ratio_image_seconds_shared.mixgrpo == pytest.approx(15 / 24)
    assert data.ratio_image_seconds_shared.mixgrpo == pytest.approx(0.5)


def test_evaluations_are_means_over_iterations_and_seeds(results):
    first, second = (
        counted(results, "mixgrpo"),
        counted(results, "mixgrpo", 1, nfe=(19, 13), update=4),
    )
    rows = [*ROWS[:2], with_metrics(ROWS[2], first, second)]
    data = make(results, rows=rows, columns=[*COST, column("update_nfe"), HPS], seeds=[0, 1])
    assert data.ours_rollout_nfe.mixgrpo == pytest.approx((25 + 16) / 2)
    assert data.ours_rollout_evaluations.mixgrpo == pytest.approx(23.0)
    assert data.ours_update_nfe.mixgrpo == pytest.approx(9.0)
    assert data.ours_update_evaluations.mixgrpo == pytest.approx(8.0)
    assert data.loc["base"].filter(regex="nfe|evaluations").isna().all()
    assert pd.isna(data.ours_rollout_nfe.dancegrpo)
    text = (results / "out.md").read_text()
    assert "Dance & co: its evaluations were not counted." in text


def test_metrics_without_evaluations_are_an_error(results):
    path = write_metrics(results / "m.jsonl", {"tiny_hps": [0.0]})
    with pytest.raises(UserError, match=r"m.jsonl: no rollout_nfe in it.*trains this run again"):
        make(results, rows=[with_metrics(ROWS[1], str(path))])


def test_errors_over_seeds_and_over_prompts_when_there_are_several(results):
    write_scores(results / "scores", "dancegrpo", 1, {"tiny_hps": [3.4, 3.8, 3.8, 4.2]})
    write_scores(results / "scores", "mixgrpo", 1, {"tiny_hps": [5.0, 5.0, 5.0, 5.0]})
    data = make(results, seeds=[0, 1])
    assert data.ours_tiny_hps.to_list() == pytest.approx([1.0, 3.3, 4.0])
    assert data.se_seeds_tiny_hps.mixgrpo == pytest.approx(
        ROOT_2 / ROOT_2
    )  # sd of 3, 5 over sqrt 2
    # over prompts: of 3, 5, 3.25, 4.75
    assert data.se_prompts_tiny_hps.mixgrpo == pytest.approx(pd.Series([3, 5, 3.25, 4.75]).sem())
    assert data.se_seeds_tiny_hps.dancegrpo == pytest.approx(0.5)
    assert pd.isna(data.se_seeds_tiny_hps.base)
    assert data.se_prompts_tiny_hps.base == pytest.approx(1 / 3**0.5)
    text = (results / "out.md").read_text()
    assert "2 training seeds (0, 1)" in text
    assert "**4.000 +- 1.000 (0.510)**" in text
    html = (results / "out.html").read_text()
    assert '<td class="best">4.000 &plusmn; 1.000<small>(0.510)</small></td>' in html
    assert '<td class="paper">16 (Avg)</td>' in html
    assert " 1.000 +- 0.577 " in text


def test_gains_are_at_their_own_p_mix_and_marked_by_paired_differences(results):
    data = make(results)
    sd = 2 / 3**0.5
    # DanceGRPO: 1, 1, 1, 1; MixGRPO: 1, 2, 1, 2, in units of the base's sd
    assert data.gain_tiny_hps[1:].to_list() == pytest.approx([1.0 / sd, 1.5 / sd])
    assert data.behind_best_tiny_hps.dancegrpo == pytest.approx(0.5 / sd)
    assert pd.isna(data.gain_tiny_hps.base)
    text = (results / "out.md").read_text()
    assert "## Gain over the untrained model (p_mix = 1)" in text
    assert "**+1.299 +- 0.250**" in text
    assert "1 training seed (0)" in text
    assert "seeds were not varied" in text.replace("\n  ", " ")


def test_rows_may_be_one_cell_at_several_p_mix(results):
    rows = [ROWS[0], *(row("mixgrpo", f"{p}", ["tiny_hps"], p_mix=p) for p in (0.8, 1.0))]
    data = make(results, rows=rows, columns=[HPS], overhead=None).reset_index()
    assert data.p_mix.to_list() == [0.0, 0.8, 1.0]
    assert data.ours_tiny_hps.to_list() == pytest.approx([1.0, 3.0, 2.5])
    sd = 2 / 3**0.5
    assert data.gain_tiny_hps[1:].to_list() == pytest.approx([2.0 / sd, 1.5 / sd])
    text = (results / "out.md").read_text()
    assert "## Performance\n" in text
    with pytest.raises(UserError, match="rows show mixgrpo twice"):
        make(results, rows=[rows[1], rows[1]])


def test_views_are_two_grids_each_and_a_row_of_the_csv_each(results):
    scores = results / "scores"
    for cell, p_mix, values in (("base", 0.0, [0.0, 2.0]), ("dancegrpo", 0.8, [1.0, 4.0])):
        write_scores(scores, cell, 0, {"tiny_hps": values}, p_mix=p_mix, dataset="pick")
    both = [entry("mixgrpo", ["tiny_hps"]), entry("dancegrpo", ["tiny_hps"])]
    rows = [row("", "Row", entries=both, published_row=2)]
    views = [view("In"), view("Out", dataset="pick", published_prefix="ood_")]
    data = make(results, rows=rows, views=views, columns=[HPS], overhead=None)
    assert data.view.to_list() == ["In", "Out"]
    assert data.ours_tiny_hps.to_list() == pytest.approx([3.0, 2.5])
    assert data.paper_hps_v2_1.to_list() == [0.367, 0.5]
    assert data.num_images.to_list() == [4, 2]
    titles = [line for line in (results / "out.md").read_text().splitlines() if line[:3] == "## "]
    assert titles == [
        "## In: performance (hpd test, p_mix = 0.8)",
        "## In: gain over the untrained model (hpd test, p_mix = 1)",
        "## Out: performance (pick test, p_mix = 0.8)",
        "## Out: gain over the untrained model (pick test, p_mix = 1)",
    ]


def test_groups_of_columns_stand_over_their_columns(results):
    columns = [HPS | {"group": "In Domain"}, column("other", group="Out-of-Domain")]
    make(results, columns=columns, overhead=None)
    assert '<th colspan="2" class="named">In Domain</th>' in (results / "out.html").read_text()
    tex = (results / "out.tex").read_text()
    assert r"\multicolumn{2}{c}{In Domain} & \multicolumn{1}{c}{Out-of-Domain} \\" in tex
    assert r"\cmidrule(lr){2-3}\cmidrule(lr){4-4}" in tex


def test_best_is_bold_and_what_it_cannot_be_told_from_in_italics(results):
    make(results)
    text = (results / "out.md").read_text()
    assert "**3.000 +- 1.021**" in text
    assert "_2.800 +- 0.163_" in text
    assert " 1.000 +- 0.577 " in text
    tex = (results / "out.tex").read_text()
    assert r"\textbf{3.000 $\pm$ 1.021}" in tex
    assert r"\underline{2.800 $\pm$ 0.163}" in tex


def test_what_the_paper_does_not_print_has_no_best(results):
    for cell, p_mix in (("base", 0.0), ("dancegrpo", 0.8), ("dancegrpo", 1.0), ("mixgrpo", 0.8)):
        write_scores(results / "scores", cell, 0, {"sharp": [1.0, 2.0, 3.0, 9.0]}, p_mix=p_mix)
    write_scores(results / "scores", "mixgrpo", 0, {"sharp": [2.0, 3.0, 4.0, 8.0]}, p_mix=1.0)
    data = make(results, columns=[HPS, column("sharp")], overhead=None)
    assert data.ours_sharp.to_list() == [3.75] * 3
    assert data.behind_best_sharp.isna().all()
    marked = [line.count("**") for line in (results / "out.md").read_text().splitlines()]
    assert (
        sum(marked) == 2 * 3
    )  # the best of tiny_hps: its score, its gain, its gain in what it trained on


def test_a_missing_score_is_blank_with_a_footnote_and_never_zero(results):
    (results / "scores/dancegrpo/seed0/index.json").write_text('{"scores": []}')
    data = make(results)
    assert pd.isna(data.ours_tiny_hps.dancegrpo)
    text = (results / "out.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| Dance & co"))
    assert line.split("|")[2].strip() == "[1]"
    assert "[1] Dance & co: no score of tiny_hps, hpd test at p_mix = 0.8." in text
    assert "0.000" not in text
    assert "Dance \\& co & $^{1}$ & 0.356" in (results / "out.tex").read_text()


def test_a_cell_without_any_folder_is_blank_too(results):
    data = make(results, rows=[*ROWS, row("flash", "Flash", ["tiny_hps"])])
    assert pd.isna(data.ours_tiny_hps.flash)
    text = (results / "out.md").read_text()
    assert "Flash: no score of tiny_hps" in text
    assert "Flash: it was not timed." in text


def test_scores_of_some_seeds_are_said_to_be(results):
    data = make(results, seeds=[0, 1])
    assert data.ours_tiny_hps.mixgrpo == pytest.approx(3.0)
    assert "Mix*: score of tiny_hps of seed 0 only" in (results / "out.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_golden(results, kind):
    make(results)
    text = (results / f"out.{kind}").read_text()
    if kind == "html":  # the table without the page around it
        text = "".join(text.partition("<article")[1:]).partition("</article>")[0]
    assert text == (GOLDEN / f"paper.{kind}").read_text()


def test_the_paper_is_not_mentioned_when_nothing_is_published(results):
    hps = HPS | {"published_column": None}
    make(results, columns=[hps], published=None, overhead=None)
    assert "paper" not in (results / "out.md").read_text()


def test_no_line_is_wider_than_a_terminal(results):
    scores = results / "scores"
    names = [f"a_reward_with_a_long_name_{i}" for i in range(5)]
    values = {name: [0.0, 1.0, 2.0, 3.0] for name in names}
    write_scores(scores, "base", 0, values, p_mix=0.0)
    write_scores(scores, "dancegrpo", 0, values)
    write_scores(scores, "mixgrpo", 0, values)
    columns = [column(name, published_column="hps") for name in names]
    make(results, columns=columns, overhead=None)
    lines = (results / "out.md").read_text().splitlines()
    assert max(map(len, lines)) <= 160
    assert sum(line.startswith("| Mix*") for line in lines) == 3 + 2
    for line in lines:
        assert not line.startswith("| |")


def test_cost_columns_need_the_overhead_file(results):
    with pytest.raises(UserError, match=r"has the columns iteration_seconds.*--overhead"):
        make(results, overhead=None)


def test_a_measurement_of_nothing_is_an_error(results):
    path = results / "overhead.json"
    path.write_text(
        path.read_text().replace('"iteration_seconds": 4.0', '"iteration_seconds": 0.0')
    )
    with pytest.raises(UserError, match=f"{path}.*\n.*dancegrpo.*iteration_seconds = 0.0"):
        make(results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": [HPS | {"published_column": "hsp"}]}, "no column 'hsp'.*There are: method"),
        ({"rows": [ROWS[0] | {"published_row": 3}]}, "no row 3.*There are 3"),
        ({"published": "nowhere.csv"}, "nowhere.csv: no such file"),
        ({"kind": "papper"}, "kind: .*papper"),
        ({"titel": "x"}, "titel: .*Unexpected"),
        ({"rows": [ROWS[0], ROWS[0]]}, "rows show base twice"),
        ({"rows": []}, "rows is empty"),
        ({"views": [view(p_mix="0.8")]}, "p_mix: .*number.*'0.8'"),
        ({"views": []}, "views is empty"),
        ({"views": [view("a"), view("b")]}, "row FLUX has 1 entries; wanted one for each of the 2"),
    ],
)
def test_bad_specs_are_explained(results, change, message):
    with pytest.raises(UserError, match=message):
        make(results, **change)


def test_a_spec_that_is_not_there_or_not_json(results):
    paths = {name: results / name for name in KINDS}
    spec = results / "spec.json"
    with pytest.raises(UserError, match=f"{spec}: no such file. `snakemake {spec}`"):
        table.run(spec=spec, scores=results, **paths)
    spec.write_text("{")
    with pytest.raises(UserError, match=f"{spec}: not JSON"):
        table.run(spec=spec, scores=results, **paths)


def test_the_same_input_gives_the_same_bytes(results):
    make(results)
    first = [(results / f"out.{kind}").read_bytes() for kind in KINDS]
    spec = json.loads((results / "spec.json").read_text())
    (results / "spec.json").write_text(json.dumps(dict(reversed(spec.items()))))
    make(results)
    assert first == [(results / f"out.{kind}").read_bytes() for kind in KINDS]
