import json
import re

import pytest

from mixgrpo.errors import UserError
from mixgrpo.report.scores import Source, per_image, read_scores
from tests.report.results import write_scores


def read(folder, cells=("mixgrpo",), rewards=("hps",), seeds=(0,), p_mix=0.8):
    sources = [Source(cell, p_mix, seeds) for cell in cells]
    return read_scores(folder, sources, rewards=rewards, dataset="hpd", split="test")


def csv_of(index):
    return index.parent / "hpd_test/p0.80/hps.csv"


def test_rows_are_tidy(tmp_path):
    write_scores(tmp_path, "mixgrpo", 0, {"hps": [0.5, 0.25]})
    write_scores(tmp_path, "mixgrpo", 1, {"hps": [1.5, 1.25]})
    scores = read(tmp_path, seeds=(0, 1))
    names = ["cell", "p_mix", "seed", "reward", "prompt_id", "noise_seed", "score"]
    assert list(scores.columns) == names
    assert scores.values.tolist() == [
        ["mixgrpo", 0.8, 0, "hps", "hpd-000", 42, 0.5],
        ["mixgrpo", 0.8, 0, "hps", "hpd-001", 42, 0.25],
        ["mixgrpo", 0.8, 1, "hps", "hpd-000", 42, 1.5],
        ["mixgrpo", 0.8, 1, "hps", "hpd-001", 42, 1.25],
    ]


def test_one_cell_at_several_p_mix_is_several_sources(tmp_path):
    write_scores(tmp_path, "mixgrpo", 7, {"hps": [0.5]}, p_mix=0.2)
    write_scores(tmp_path, "mixgrpo", 7, {"hps": [0.75]}, p_mix=1.0)
    sources = [Source("mixgrpo", p_mix, (7,)) for p_mix in (1.0, 0.2, 1.0)]
    scores = read_scores(tmp_path, sources, rewards=["hps"], dataset="hpd", split="test")
    assert scores[["p_mix", "score"]].values.tolist() == [[1.0, 0.75], [0.2, 0.5]]
    assert list(per_image(scores)) == [("mixgrpo", 1.0, 7, "hps"), ("mixgrpo", 0.2, 7, "hps")]


def test_other_sets_and_rewards_are_left_out(tmp_path):
    write_scores(tmp_path, "mixgrpo", 0, {"hps": [0.5], "sharpness": [9.0]}, p_mix=0.8)
    assert read(tmp_path).score.to_list() == [0.5]
    assert read(tmp_path, p_mix=1.0).empty
    assert read(tmp_path, cells=("flash",)).empty


def test_per_image_puts_all_in_one_order(tmp_path):
    write_scores(tmp_path, "mixgrpo", 0, {"hps": [0.5, 0.25]})
    index = write_scores(tmp_path, "flash", 0, {"hps": [3.0, 4.0]})
    head, columns, first, second = csv_of(index).read_text().splitlines()
    csv_of(index).write_text("\n".join([head, columns, second, first]) + "\n")
    images = per_image(read(tmp_path, cells=("mixgrpo", "flash")))
    assert images["mixgrpo", 0.8, 0, "hps"].to_list() == [0.5, 0.25]
    assert images["flash", 0.8, 0, "hps"].to_list() == [3.0, 4.0]


def cut_a_row(text):
    return text[: text.index("hpd-001")]


def cut_the_last_line(text):
    return text[:-2]


def double_a_prompt(text):
    return text.replace("hpd-001", "hpd-000")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_a_row, "1 rows.*promises 2"),
        (cut_the_last_line, "cut off"),
        (double_a_prompt, "hpd-000 appears twice"),
        (lambda text: text.replace("prompt_id,seed", "prompt,seed"), "columns prompt, seed, score"),
        (lambda text: text.replace("0.25", "nan"), "hpd-001.*'nan'"),
        (lambda text: text.replace("0.25", "inf"), "hpd-001.*'inf'"),
        (lambda text: text.replace("0.25", ""), "hpd-001.*''"),
        (lambda text: text.replace("0.25", "0.25,1"), "not a csv"),
        (lambda text: text.replace("001,42", "001,x"), "seed 'x'"),
        (lambda text: text.replace('"hps"', '"clip"'), "scores of clip"),
        (lambda text: text.replace("# ", ""), "first line"),
        (lambda text: "", "first line"),
    ],
)
def test_a_damaged_csv_names_file_and_remedy(tmp_path, damage, message):
    index = write_scores(tmp_path, "mixgrpo", 0, {"hps": [0.5, 0.25]})
    csv_of(index).write_text(damage(csv_of(index).read_text()))
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path)
    assert str(csv_of(index)) in str(error.value)
    assert f"snakemake {index}" in str(error.value)


def test_a_listed_csv_that_is_gone_is_an_error(tmp_path):
    index = write_scores(tmp_path, "mixgrpo", 0, {"hps": [0.5]})
    csv_of(index).unlink()
    with pytest.raises(UserError, match=re.escape(f"{csv_of(index)}: no such file")):
        read(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"scores": [{"reward": "hps"}]}'])
def test_a_damaged_index_is_an_error(tmp_path, text):
    index = write_scores(tmp_path, "mixgrpo", 0, {"hps": [0.5]})
    index.write_text(text)
    with pytest.raises(UserError, match=f"{index}.*(not JSON|does not hold)"):
        read(tmp_path)


@pytest.mark.parametrize("other", [{"values": {"hps": [1.0, 2.0, 3.0]}}, {"noise_seed": 43}])
def test_cells_that_scored_other_images_cannot_be_compared(tmp_path, other):
    values = {"hps": [1.0, 2.0]}
    write_scores(tmp_path, "mixgrpo", 0, values)
    write_scores(tmp_path, "flash", 0, **({"values": values} | other))
    with pytest.raises(UserError, match=r"flash/seed0 \(hps, p_mix = 0.8\).*cannot be compared"):
        read(tmp_path, cells=("mixgrpo", "flash"))


def test_an_index_of_many_keys_is_read(tmp_path):
    index = write_scores(tmp_path, "mixgrpo", 0, {"hps": [0.5]})
    data = json.loads(index.read_text())
    data["note"] = "more than a table needs"
    index.write_text(json.dumps(data))
    assert read(tmp_path).score.to_list() == [0.5]
