import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mixgrpo.errors import UserError
from mixgrpo.report.prompt_choice import varied_prompts
from mixgrpo.report.training_curves import running_length, running_mean
from mixgrpo.stages import figure
from tests.report.results import write_metrics, write_pictures

DRAWS = {"figure04": "image_grid", "training_curves": "training_curves"} | {
    "figure01": "trade_off",
    "figure02": "window_and_spread",
}
STYLES = ["flat", "striped", "flat", "flat", "striped", "shaded"]
PROMPTS = [(f"hpd-{i:03d}", f"{style} red $ circle {i}") for i, style in enumerate(STYLES)]


def facts(name, cells, **other):
    return {
        "name": name,
        "draw": DRAWS[name],
        "base": "base",
        "title": "A title",
        "caption": "A caption.",
        "preset": "tiny",
        "scale": "very small",
        "seeds": [0],
        "dataset": "hpd",
        "split": "test",
        "p_mix": 0.8,
        "num_prompts": 4,
        "prompts": None,
        "rewards": {"tiny_hps": "HPS-v2.1"},
        "cells": cells,
    } | other


@pytest.fixture
def pictures(tmp_path):
    """The spec of a figure of two cells."""
    prompts = tmp_path / "prompts.tsv"
    rows = [f"{i}\t{text}\t{style}\n" for (i, text), style in zip(PROMPTS, STYLES, strict=True)]
    prompts.write_text("id\tprompt\tstyle\n" + "".join(rows))
    base = write_pictures(tmp_path, "base", PROMPTS, p_mix=0.0)
    mixgrpo = write_pictures(tmp_path, "mixgrpo", PROMPTS, side=40)
    cells = [
        {"cell": "base", "label": "FLUX", "images": str(base), "p_mix": 0.0, "seeds": [0]},
        {"cell": "mixgrpo", "label": "MixGRPO", "images": str(mixgrpo), "p_mix": 0.8}
        | {"trained": ["tiny_hps"]},
    ]
    spec = tmp_path / "figure04.json"
    spec.write_text(json.dumps(facts("figure04", cells, prompts=str(prompts))))
    return spec


@pytest.fixture
def curves(tmp_path):
    """The spec of training curves of two cells, one of them with two seeds."""
    rising = np.linspace(0, 1, 25).tolist()
    two = [write_metrics(tmp_path / f"m{i}.jsonl", {"tiny_hps": rising}) for i in (0, 1)]
    one = write_metrics(tmp_path / "d.jsonl", {"tiny_hps": rising, "other": rising}, size=24)
    cells = [
        {"cell": "mixgrpo", "label": "MixGRPO", "seeds": [0, 1], "metrics": list(map(str, two))},
        {"cell": "dancegrpo", "label": "DanceGRPO", "metrics": [str(one)]},
    ]
    spec = tmp_path / "training_curves.json"
    nothing = dict.fromkeys(["dataset", "split", "p_mix", "num_prompts", "prompts"])
    spec.write_text(json.dumps(facts("training_curves", cells, **nothing)))
    return spec


def draw(spec, *names):
    outputs = [spec.parent / name for name in names]
    figure.run(spec=spec, outputs=outputs)
    return outputs


def edit(spec, **changes):
    spec.write_text(json.dumps(json.loads(spec.read_text()) | changes))


def test_figure04_is_a_picture_of_its_pictures(pictures):
    (path,) = draw(pictures, "out.png")
    pixels = np.asarray(Image.open(path).convert("RGB"))
    # inches: margins and labels, 4 columns of 1 with gaps (flat, flat | striped | shaded)
    width = 0.18 + 1.15 + 4 * 1.0 + 0.05 + 2 * 0.16 + 0.18
    height = 1.0 + 2 * (1.0 + 0.05) + 0.58 + 0.22
    assert pixels.shape[:2] == pytest.approx((200 * height, 200 * width), abs=1)
    first = (200 * 1.5, 200 * (0.18 + 1.15 + 0.5))
    assert pixels[int(first[0]), int(first[1])].tolist() == [0, 80, 90]
    second_row = (200 * 2.55, first[1] + 200 * 1.05)  # MixGRPO, the second flat prompt: number 2
    assert pixels[int(second_row[0]), int(second_row[1])].tolist() == [80, 140, 90]


def test_training_curves_have_a_panel_for_each_reward(curves):
    (path,) = draw(curves, "out.png")
    picture = Image.open(path).convert("RGB")
    width, height = picture.size
    assert width == 200 * 6.6
    assert height == pytest.approx(
        200 * (1.35 + 2 * (1.35 + 0.34) + 2 * (0.24 + 0.07) + 0.62), abs=1
    )
    assert {(213, 94, 0), (0, 114, 178)} <= {color for _, color in picture.getcolors(1 << 16)}


def test_the_same_figure_is_the_same_bytes_in_another_process(pictures, curves):
    code = (
        "import pathlib, sys; from mixgrpo.stages import figure\n"
        "for spec in map(pathlib.Path, sys.argv[1:]):\n"
        "    outputs = [spec.with_suffix('.png'), spec.with_suffix('.pdf')]\n"
        "    figure.run(spec=spec, outputs=outputs)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, pictures, curves], check=True, env=environment)
    for spec in (pictures, curves):
        for path in draw(spec, "here.png", "here.pdf"):
            assert path.read_bytes() == spec.with_suffix(path.suffix).read_bytes()
            assert b"Date" not in path.read_bytes()


def chosen(texts, count):
    frame = pd.DataFrame({"prompt": texts, "style": [text.split()[0] for text in texts]})
    return varied_prompts(frame, count)["prompt"].to_list()


def test_prompts_are_chosen_by_style_and_then_for_variety():
    texts = ["flat red ring", "striped red ring", "flat red ball", "striped blue ball", "flat x y"]
    # flat: the first; striped: shares nothing with it; flat: shares "flat" only; striped: the rest
    wanted = ["flat red ring", "flat x y", "striped blue ball", "striped red ring"]
    assert chosen(texts, 4) == wanted
    assert chosen(texts, 3) == wanted[:3]
    assert chosen(texts, 1) == wanted[:1]
    assert sorted(chosen(texts, 100)) == sorted(texts)


def test_the_earlier_of_two_equally_varied_prompts_is_chosen():
    assert chosen(["flat a", "striped b", "striped c", "flat d", "flat e"], 3) == [
        "flat a",
        "flat d",
        "striped b",
    ]


def test_running_mean_is_over_whole_windows_only():
    values = pd.Series([1.0, 2.0, 6.0, 4.0])
    assert running_mean(values, 2).to_dict() == {1: 1.5, 2: 4.0, 3: 5.0}
    assert [running_length(n) for n in (1, 4, 19, 20, 300)] == [1, 2, 9, 10, 10]


def test_different_noise_is_an_error(pictures, tmp_path):
    other = write_pictures(tmp_path / "other", "mixgrpo", PROMPTS, noise_seed=43)
    cells = json.loads(pictures.read_text())["cells"]
    cells[1]["images"] = str(other)
    edit(pictures, cells=cells)
    with pytest.raises(UserError, match="hpd-000 start from different noise"):
        draw(pictures, "out.png")


def test_a_missing_picture_set_or_file_is_an_error(pictures):
    folder = pictures.parent / "mixgrpo/seed0"
    (folder / "hpd_test/p0.80/hpd-000.png").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"hpd-000.png: not a whole picture.*snakemake"):
        draw(pictures, "out.png")
    manifest = folder / "hpd_test/p0.80/manifest.json"
    manifest.write_text('{"images": []}')
    with pytest.raises(UserError, match="no picture of prompt hpd-000"):
        draw(pictures, "out.png")
    (folder / "index.json").write_text('{"sets": []}')
    with pytest.raises(UserError, match=r"no set hpd test at p_mix = 0.8"):
        draw(pictures, "out.png")


@pytest.mark.parametrize("text", ["", "id\tprompt\tstyle\n", "id\tprompt\nx\ty\n"])
def test_a_prompts_file_without_prompts_is_an_error(pictures, text):
    (pictures.parent / "prompts.tsv").write_text(text)
    with pytest.raises(UserError, match=r"prompts.tsv: .*(rows of|not a tab)"):
        draw(pictures, "out.png")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"iteration": 2', "line 3: not the metrics"),
        ('{"reward/tiny_hps": 1.0}', "line 3: not the metrics"),
        ('{"iteration": 7, "reward/tiny_hps": 1.0}', "line 3: iteration 7, wanted 2"),
        ('{"iteration": 2, "reward/tiny_hps": NaN}', "reward/tiny_hps of iteration 2"),
    ],
)
def test_damaged_metrics_are_an_error(curves, line, message):
    path = curves.parent / "m0.jsonl"
    kept = path.read_text().splitlines()[:2]
    path.write_text("\n".join([*kept, line]) + "\n")
    with pytest.raises(UserError, match=message):
        draw(curves, "out.png")


def test_curves_of_a_short_run(curves):
    for path in curves.parent.glob("*.jsonl"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    (path,) = draw(curves, "out.png")
    assert Image.open(path).size[0] == 1320


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": None}, "needs prompts, which its spec leaves out"),
        ({"num_prompts": 0}, "num_prompts=0"),
        ({"cells": []}, "cells is empty"),
        ({"captoin": ""}, "captoin"),
        ({"cells": [{"cell": "base", "label": "FLUX"}]}, "base has no images"),
    ],
)
def test_bad_specs_are_explained(pictures, changes, message):
    edit(pictures, **changes)
    with pytest.raises(UserError, match=message):
        draw(pictures, "out.png")


def test_unknown_figures_and_formats(pictures):
    with pytest.raises(UserError, match=r"out.svg: wanted a file ending in .png or .pdf"):
        draw(pictures, "out.svg")
    edit(pictures, draw="style")
    with pytest.raises(UserError, match=r"draw is 'style'.*There are: image_grid, trade_off"):
        draw(pictures, "out.png")


def test_rows_may_be_one_cell_at_several_p_mix(pictures):
    spec = json.loads(pictures.read_text())
    other = write_pictures(pictures.parent / "half", "mixgrpo", PROMPTS, p_mix=0.4)
    half = spec["cells"][1] | {"label": "40 %", "p_mix": 0.4, "images": str(other)}
    edit(pictures, cells=[spec["cells"][0], half, spec["cells"][1]])
    (path,) = draw(pictures, "out.png")
    assert Image.open(path).size[1] == pytest.approx(200 * (1.0 + 3 * 1.05 + 0.58 + 0.22), abs=1)


def test_a_png_says_what_it_shows_and_where_it_comes_from(pictures):
    (path,) = draw(pictures, "out.png")
    said = Image.open(path).info
    assert said["Title"] == "A title"
    assert said["Description"] == "A caption."
    assert said["Source"] == "preset tiny (very small); 1 training seed (0)"


def test_users_settings_of_matplotlib_do_not_matter(pictures):
    import matplotlib as mpl

    (plain,) = draw(pictures, "one.png")
    with mpl.rc_context({"font.size": 30, "savefig.bbox": "tight"}):
        (styled,) = draw(pictures, "two.png")
    assert plain.read_bytes() == styled.read_bytes()
