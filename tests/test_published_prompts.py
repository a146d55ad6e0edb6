"""The paper's prompts: pinned, checksummed, kept, and chosen the same way everywhere. No network: a local server."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixgrpo import published_prompts
from mixgrpo.errors import UserError
from mixgrpo.prompts import read_prompts
from mixgrpo.published_prompts import PublishedFile, blob_id
from mixgrpo.stages import prompts as stage

CONTENT = "".join(f"prompt  number {i}\n" for i in range(7)) + "prompt number 6\n"
STYLES = ("animation", "photo")


@pytest.fixture
def served(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A folder behind a server, with one published file that is pinned as dataset hpdv2, split test."""
    folder = tmp_path / "site/owner/name/c0ffee"
    folder.mkdir(parents=True)
    (folder / "p.txt").write_text(CONTENT)
    handler = type(
        "Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None}
    )

    def make(*args):
        return handler(*args, directory=str(tmp_path / "site"))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), make)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(published_prompts, "HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pinned = PublishedFile("owner/name", "c0ffee", "p.txt", blob_id(CONTENT.encode()), STYLES)
    monkeypatch.setitem(published_prompts.PUBLISHED, ("hpdv2", "test"), pinned)
    yield folder / "p.txt"
    server.shutdown()
    server.server_close()


def texts_and_styles(path: Path) -> list[tuple[str, str]]:
    return [(prompt.text, prompt.style) for prompt in read_prompts(path)]


def test_all_prompts_come_with_their_styles_and_are_kept(served: Path, tmp_path: Path):
    stage.run(dataset="hpdv2", split="test", num=7, output=tmp_path / "a.tsv")
    found = texts_and_styles(tmp_path / "a.tsv")
    assert [text for text, _ in found] == [f"prompt number {i}" for i in range(7)]
    assert [style for _, style in found] == ["animation"] * 4 + ["photo"] * 3
    served.unlink()
    stage.run(dataset="hpdv2", split="test", num=7, output=tmp_path / "b.tsv")
    assert (tmp_path / "b.tsv").read_bytes() == (tmp_path / "a.tsv").read_bytes()


def test_fewer_are_part_of_more_and_spread_over_the_file(served: Path, tmp_path: Path):
    for num in (2, 5):
        stage.run(dataset="hpdv2", split="test", num=num, output=tmp_path / f"{num}.tsv")
    few, more = (read_prompts(tmp_path / f"{num}.tsv") for num in (2, 5))
    assert len(few) == 2
    assert set(few) < set(more)
    assert [prompt.text for prompt in more] != [f"prompt number {i}" for i in range(5)]


def test_a_local_copy_gives_the_same_prompts_without_a_network(
    served: Path, tmp_path: Path, monkeypatch
):
    stage.run(dataset="hpdv2", split="test", num=3, output=tmp_path / "a.tsv")
    monkeypatch.setattr(published_prompts, "HOST", "http://127.0.0.1:9")
    stage.run(dataset="hpdv2", split="test", num=3, output=tmp_path / "b.tsv", file=served)
    assert (tmp_path / "b.tsv").read_bytes() == (tmp_path / "a.tsv").read_bytes()


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(served: Path, tmp_path: Path):
    served.write_text(CONTENT[:-5])
    with pytest.raises(UserError, match=r"p\.txt: got another file than was pinned"):
        stage.run(dataset="hpdv2", split="test", num=3, output=tmp_path / "a.tsv")
    assert not list((tmp_path / "cache").rglob("*.txt"))
    served.write_text(CONTENT)
    stage.run(dataset="hpdv2", split="test", num=3, output=tmp_path / "a.tsv")


def test_a_damaged_copy_in_the_cache_is_named(served: Path, tmp_path: Path):
    stage.run(dataset="hpdv2", split="test", num=3, output=tmp_path / "a.tsv")
    kept = next((tmp_path / "cache").rglob("*.txt"))
    kept.write_text(CONTENT[:9])
    with pytest.raises(UserError, match="Delete it and rerun"):
        stage.run(dataset="hpdv2", split="test", num=3, output=tmp_path / "a.tsv")


def test_without_a_network_the_remedy_is_named(served: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(published_prompts, "HOST", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot be fetched .*files: \{train"):
        stage.run(dataset="hpdv2", split="test", num=3, output=tmp_path / "a.tsv")


def test_too_many_prompts_and_unknown_splits_are_refused(served: Path, tmp_path: Path):
    with pytest.raises(UserError, match="has 7 different prompts, but the preset asks for 8"):
        stage.run(dataset="hpdv2", split="test", num=8, output=tmp_path / "a.tsv")
    with pytest.raises(UserError, match="train, validation, test"):
        stage.run(dataset="hpdv2", split="dev", num=3, output=tmp_path / "a.tsv")


def test_validation_prompts_are_others_of_the_training_file(
    served: Path, tmp_path: Path, monkeypatch
):
    pinned = published_prompts.PUBLISHED["hpdv2", "test"]
    monkeypatch.setitem(published_prompts.PUBLISHED, ("hpdv2", "train"), pinned)
    for split, num in (("train", 4), ("validation", 3)):
        stage.run(dataset="hpdv2", split=split, num=num, output=tmp_path / f"{split}.tsv")
    train, validation = (
        {prompt.text for prompt in read_prompts(tmp_path / f"{split}.tsv")}
        for split in ("train", "validation")
    )
    assert len(train | validation) == 7
    stage.run(dataset="hpdv2", split="validation", num=3, output=tmp_path / "copy.tsv", file=served)
    assert (tmp_path / "copy.tsv").read_bytes() == (tmp_path / "validation.tsv").read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        ["a red fox", "a red  fox", "two owls"],
        # HPDv2's train.json and test.json
        [
            {"human_preference": [1, 0], "prompt": "a red fox", "file_path": ["0.jpg", "1.jpg"]},
            {"human_preference": [0, 1], "prompt": "a red fox", "file_path": ["2.jpg", "3.jpg"]},
            {"prompt": "two owls", "image_path": ["4.jpg"], "rank": [1], "raw_annotations": []},
        ],
        # Pick-a-Pic's rows
        [{"caption": "a red fox", "best_image_uid": "x"}, {"caption": "two owls"}],
    ],
)
def test_json_of_prompts_or_records_is_read(tmp_path: Path, data: list):
    (tmp_path / "mine.json").write_text(json.dumps(data))
    stage.run(
        dataset="mine",
        split="train",
        num=2,
        output=tmp_path / "p.tsv",
        file=tmp_path / "mine.json",
    )
    assert texts_and_styles(tmp_path / "p.tsv") == [("a red fox", "own"), ("two owls", "own")]


@pytest.mark.parametrize("text", ['{"prompt": "a"}', '[{"text": "a"}]', "[1]", '["a'])
def test_other_json_is_refused(tmp_path: Path, text: str):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(UserError, match=r"mine\.json: cannot be read as a file of prompts"):
        stage.run(
            dataset="m", split="test", num=1, output=tmp_path / "p", file=tmp_path / "mine.json"
        )
