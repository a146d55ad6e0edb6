import json
from pathlib import Path

import pandas as pd
import pytest

from mixgrpo.errors import UserError
from mixgrpo.stages import table
from tests.report.results import (
    column,
    measurement,
    row,
    write_overhead,
    write_scores,
    write_table_spec,
)

GOLDEN = Path(__file__).parent / "golden"
ROOT_2 = 2**0.5
PUBLISHED = (
    "method,nfe_old,time,hps\nFLUX,,,0.313\nDance,25,200.0,0.356\nMix*,16 (Avg),50.0,0.367\n"
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
    write_scores(scores, "mixgrpo", 0, {"tiny_hps": [1.0, 5.0, 1.5, 4.5]})
    write_overhead(
        tmp_path / "overhead.json",
        {
            "dancegrpo": (measurement(4.0, 24.0, 12.0), measurement(5.0, 25.0, 14.0)),
            "mixgrpo": (measurement(2.0, 15.0, 3.0), measurement(2.5, 25.0, 4.0)),
        },
    )
    return tmp_path


def make(results, *, columns=None, rows=ROWS, overhead="overhead.json", **other):
    spec = write_table_spec(
        results / "spec.json",
        columns=columns or [*COST, HPS],
        rows=rows,
        **({"published": str(results / "published.csv")} | other),
    )
    table.run(
        spec=spec,
        scores=results / "scores",
        overhead=results / overhead if overhead else None,
        csv=results / "out.csv",
        md=results / "out.md",
        tex=results / "out.tex",
    )
    return pd.read_csv(results / "out.csv").set_index("cell")


def test_means_and_errors_over_prompts(results):
    data = make(results)
    assert data.ours_tiny_hps.to_list() == pytest.approx([1.0, 2.8, 3.0])
    assert data.se_tiny_hps.base == pytest.approx(1 / 3**0.5)
    assert data.se_tiny_hps.dancegrpo == pytest.approx((0.32 / 3) ** 0.5 / 2)
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


def test_errors_over_seeds_when_there_are_several(results):
    write_scores(results / "scores", "dancegrpo", 1, {"tiny_hps": [3.4, 3.8, 3.8, 4.2]})
    write_scores(results / "scores", "mixgrpo", 1, {"tiny_hps": [5.0, 5.0, 5.0, 5.0]})
    data = make(results, seeds=[0, 1])
    assert data.ours_tiny_hps.to_list() == pytest.approx([1.0, 3.3, 4.0])
    assert data.se_tiny_hps.mixgrpo == pytest.approx(ROOT_2 / ROOT_2)  # sd of 3, 5 over sqrt 2
    assert data.se_tiny_hps.dancegrpo == pytest.approx(0.5)
    assert data.se_tiny_hps.base == pytest.approx(1 / 3**0.5)
    assert "2 training seeds (0, 1)" in (results / "out.md").read_text()


def test_best_is_bold_and_what_it_cannot_be_told_from_in_italics(results):
    make(results)
    text = (results / "out.md").read_text()
    assert "**3.000 +- 1.021**" in text
    assert "_2.800 +- 0.163_" in text
    assert " 1.000 +- 0.577 " in text
    tex = (results / "out.tex").read_text()
    assert r"\textbf{3.000 $\pm$ 1.021}" in tex
    assert r"\underline{2.800 $\pm$ 0.163}" in tex


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
    assert "Flash: its cost was not measured." in text


def test_scores_of_some_seeds_are_said_to_be(results):
    data = make(results, seeds=[0, 1])
    assert data.ours_tiny_hps.mixgrpo == pytest.approx(3.0)
    assert "Mix*: score of tiny_hps of seed 0 only" in (results / "out.md").read_text()


@pytest.mark.parametrize("kind", ["md", "tex", "csv"])
def test_golden(results, kind):
    make(results)
    golden = GOLDEN / f"paper.{kind}"
    assert (results / f"out.{kind}").read_text() == golden.read_text()


def test_the_paper_is_not_mentioned_when_nothing_is_published(results):
    hps = HPS | {"published_column": None}
    make(results, columns=[hps], published=None, overhead=None)
    assert "paper" not in (results / "out.md").read_text()


def test_no_line_is_wider_than_a_terminal(results):
    scores = results / "scores"
    names = [f"a_reward_with_a_long_name_{i}" for i in range(5)]
    values = {name: [0.0, 1.0] for name in names}
    write_scores(scores, "base", 0, values, p_mix=0.0)
    write_scores(scores, "dancegrpo", 0, values)
    write_scores(scores, "mixgrpo", 0, values)
    columns = [column(name, published_column="hps") for name in names]
    make(results, columns=columns, overhead=None)
    lines = (results / "out.md").read_text().splitlines()
    assert max(map(len, lines)) <= 160
    assert sum(line.startswith("| Mix*") for line in lines) == 3
    for line in lines:
        assert not line.startswith("| |")


def test_cost_columns_need_the_overhead_file(results):
    with pytest.raises(UserError, match=r"rollout_nfe, iteration_seconds.*--overhead"):
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
        ({"rows": [ROWS[0], ROWS[0]]}, "rows name base twice"),
        ({"rows": []}, "rows is empty"),
        ({"p_mix": "0.8"}, "p_mix: .*number.*'0.8'"),
    ],
)
def test_bad_specs_are_explained(results, change, message):
    with pytest.raises(UserError, match=message):
        make(results, **change)


def test_a_spec_that_is_not_there_or_not_json(results):
    paths = {name: results / name for name in ("csv", "md", "tex")}
    spec = results / "spec.json"
    with pytest.raises(UserError, match=f"{spec}: no such file. `snakemake {spec}`"):
        table.run(spec=spec, scores=results, **paths)
    spec.write_text("{")
    with pytest.raises(UserError, match=f"{spec}: not JSON"):
        table.run(spec=spec, scores=results, **paths)


def test_the_same_input_gives_the_same_bytes(results):
    make(results)
    first = [(results / f"out.{kind}").read_bytes() for kind in ("csv", "md", "tex")]
    spec = json.loads((results / "spec.json").read_text())
    (results / "spec.json").write_text(json.dumps(dict(reversed(spec.items()))))
    make(results)
    assert first == [(results / f"out.{kind}").read_bytes() for kind in ("csv", "md", "tex")]
