"""Any folder of pictures, scored on its own: which picture gets which prompt, what is refused, what is kept."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixgrpo.__main__ import main
from mixgrpo.errors import UserError
from mixgrpo.rewards import load_reward
from mixgrpo.scorefiles import partial
from mixgrpo.stages import score
from tests.rewards.small_pick_score import make_pick_score
from tests.rewards.small_unified_reward import chat_server

CPU = torch.device("cpu")
SIZES = [(8, 8), (12, 6), (8, 8), (6, 12), (12, 6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of three sizes, and what does not count."""
    made = tmp_path / "pictures"
    made.mkdir()
    generator = np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES):
        pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / f"{i}.png")
    (made / "notes.txt").write_text("no picture")
    (made / ".hidden.png").write_text("no picture")
    return made


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\na dog\n\nwith, a comma\n# five\n")
    return file


@pytest.fixture(scope="module")
def pick_score(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_pick_score(tmp_path_factory.mktemp("pick_score"))


def rows_of(path: Path) -> tuple[dict, list[dict[str, str]]]:
    with path.open(newline="") as file:
        head = json.loads(file.readline().removeprefix("# "))
        return head, list(csv.DictReader(file))


def pixels_of(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path), dtype=np.float32) / 255).permute(2, 0, 1)


def test_every_picture_gets_its_line_and_the_score_of_its_own(folder, prompts, pick_score, capsys):
    command = ["score", "--images", str(folder), "--prompts", str(prompts)]
    command += ["--reward", "pick_score,colorfulness", "--path", f"pick_score={pick_score}"]
    assert main([*command, "--option", "pick_score.dtype=float32"]) == 0
    head, rows = rows_of(folder.parent / "pictures.scores.csv")
    assert [row["file"] for row in rows] == [f"{i}.png" for i in range(5)]
    assert [row["prompt"] for row in rows] == ["a cat", "a dog", "", "with, a comma", "# five"]
    for name, path in (("pick_score", pick_score), ("colorfulness", None)):
        reward = load_reward(name, path, CPU)
        for row in rows:
            alone = reward.score(pixels_of(folder / row["file"])[None], [row["prompt"]]).item()
            assert float(row[name]) == pytest.approx(alone, rel=1e-4, abs=1e-6)
    facts = head["rewards"]["pick_score"]
    assert {"version", "checkpoint", "sha256", "scale", "backend"} <= facts.keys()
    assert facts["options"] == {"dtype": "float32"}
    mean = np.mean([float(row["pick_score"]) for row in rows])
    assert f"pick_score: mean {mean:.4f} +- " in capsys.readouterr().out


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_a_csv_says_which_picture_and_in_which_order(folder, tmp_path, suffix, delimiter):
    file = tmp_path / f"prompts{suffix}"
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, delimiter=delimiter)
        writer.writerows(
            [["prompt", "file", "note"], ["two\nlines", "3.png", "x"], ["b", "0.png", ""]]
        )
    score.run(images=folder, prompts=file, reward="sharpness", output=tmp_path / "out.csv")
    _, rows = rows_of(tmp_path / "out.csv")
    assert [(row["file"], row["prompt"]) for row in rows] == [
        ("3.png", "two\nlines"),
        ("0.png", "b"),
    ]


def scored(folder: Path, prompts: Path, reward: str = "sharpness", **more) -> list[dict[str, str]]:
    output = folder.parent / "out.csv"
    score.run(images=folder, prompts=prompts, reward=reward, output=output, **more)
    return rows_of(output)[1]


def test_grey_transparent_indexed_and_deep_pictures_are_read(folder, prompts):
    grey = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(grey).save(folder / "0.png")
    Image.fromarray(np.stack([grey] * 3 + [grey // 2], -1)).save(folder / "1.png")
    Image.fromarray(grey).convert("P").save(folder / "2.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "3.png")
    Image.fromarray(np.stack([grey] * 3, -1)).save(folder / "4.png")
    scores = [float(row["sharpness"]) for row in scored(folder, prompts)]
    assert scores[0] > 0
    assert scores == pytest.approx([scores[4]] * 5, rel=1e-5)


def test_pictures_without_a_range_are_refused(folder, prompts):
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(folder / "5.tiff")
    prompts.write_text(prompts.read_text() + "six\n")
    with pytest.raises(UserError, match=r"5\.tiff cannot be read \(pixels of PIL's mode F"):
        scored(folder, prompts)


@pytest.mark.parametrize("cut", [0, 20, -60])
def test_a_picture_that_cannot_be_read_is_named(folder, prompts, cut):
    victim = folder / "3.png"
    victim.write_bytes(victim.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"3\.png cannot be read \(.*Replace it"):
        scored(folder, prompts)


def test_counts_that_differ_are_named(folder, prompts):
    prompts.write_text("one\ntwo\n")
    with pytest.raises(UserError, match=r"has 5 pictures \(0\.png to 4\.png\), .* has 2 lines"):
        scored(folder, prompts)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "picture,prompt\n0.png,a\n", "columns picture, prompt; wanted file and prompt"),
        ("p.csv", "file,prompt\n9.png,a\n", r"line 2: there is no picture .*9\.png"),
        ("p.csv", "file,prompt\n0.png\n", "line 2: wanted a file and its prompt"),
        ("p.tsv", "file\tprompt\n", "has no rows"),
        ("p.csv", "", "wanted file and prompt"),
    ],
)
def test_a_csv_that_does_not_say_it_is_refused(folder, tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        scored(folder, tmp_path / name)


def test_no_folder_no_pictures_no_prompts(folder, prompts, tmp_path):
    with pytest.raises(UserError, match="nowhere: wanted a folder"):
        scored(tmp_path / "nowhere", prompts)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no pictures"):
        scored(tmp_path / "empty", prompts)
    with pytest.raises(UserError, match=r"--prompts .*none\.txt cannot be read"):
        scored(folder, tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reward": "sharpnes"}, "'sharpnes' is no file"),
        ({"reward": "sharpness", "path": ["pick_score=x"]}, "--path pick_score=x"),
        ({"reward": "pick_score", "path": ["pick_score=/none/x"]}, "nothing at /none/x"),
        (
            {"reward": "pick_score", "option": ["pick_score.dtyp=1"]},
            "There are: .*pick_score.dtype",
        ),
        ({"reward": "sharpness", "index": Path("x")}, "wanted --images INDEX --rewards FILE"),
        ({"reward": None}, "wanted --images INDEX --rewards FILE"),
    ],
)
def test_a_wrong_command_is_named(folder, prompts, arguments, message):
    with pytest.raises(UserError, match=message):
        score.run(images=folder, prompts=prompts, **arguments)


def test_what_is_current_is_kept_and_what_changed_is_scored_again(folder, prompts, monkeypatch):
    calls: list[tuple[str, int]] = []
    original = score.score_pictures

    def counted(scorer, pictures, shard):
        calls.append((scorer.name, len(shard)))
        return original(scorer, pictures, shard)

    monkeypatch.setattr(score, "score_pictures", counted)
    first = scored(folder, prompts)
    assert scored(folder, prompts) == first
    assert calls == [("sharpness", 5)]
    both = scored(folder, prompts, "colorfulness")
    assert [row["sharpness"] for row in both] == [row["sharpness"] for row in first]
    assert calls[1:] == [("colorfulness", 5)]
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    changed = scored(folder, prompts)
    assert calls[2:] == [("sharpness", 5)]
    assert changed[0].keys() == {
        "file",
        "prompt",
        "sharpness",
    }  # the other column was of 0.png as it was


def test_an_interrupted_job_goes_on_with_the_next_shard(folder, prompts, monkeypatch):
    expected = scored(folder, prompts)
    (folder.parent / "out.csv").unlink()
    monkeypatch.setattr(score, "SHARD", 2)
    original, calls = score.score_pictures, []

    def interrupted(scorer, pictures, shard):
        calls.append(shard)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(scorer, pictures, shard)

    monkeypatch.setattr(score, "score_pictures", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scored(folder, prompts)
    kept = partial(folder.parent / "out.csv.sharpness")
    assert len(kept.read_text().splitlines()) == 5
    with kept.open("a") as file:
        file.write("4,0.12")  # torn by the kill
    assert scored(folder, prompts) == expected
    assert calls == [range(0, 2), range(2, 4), range(4, 5), range(4, 5)]
    assert not kept.exists()


def test_half_made_scores_of_other_pictures_are_not_used(folder, prompts, monkeypatch):
    kept = partial(folder.parent / "out.csv.sharpness")
    kept.write_text("# 0123456789abcdef\n0,99.0\n1,99.0\n")
    assert all(float(row["sharpness"]) != 99 for row in scored(folder, prompts))


def test_a_reward_behind_a_server_is_asked_where_it_was_placed(folder, prompts, monkeypatch):
    with chat_server() as server:
        monkeypatch.setenv("MIXGRPO_REWARDS", f"unified_reward={server.url}")
        rows = scored(folder, prompts, "unified_reward")
        assert len(server.asked) == 5
        assert all(1 < float(row["unified_reward"]) < 5 for row in rows)
        assert scored(folder, prompts, "unified_reward") == rows
        assert len(server.asked) == 5
