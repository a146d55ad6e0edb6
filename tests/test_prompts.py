"""Prompt and embedding files: stable ids, and every way a file can be wrong is named."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mixgrpo.errors import UserError
from mixgrpo.locks import locked
from mixgrpo.prompts import (
    prompt_id,
    read_embeddings,
    read_prompts,
    write_embeddings,
    write_prompts,
)
from mixgrpo.records import Conditioning, Prompt
from mixgrpo.stages import prompts as stage

ROWS = [Prompt(prompt_id("d", text), text, "flat") for text in ("a red circle", "a ring, blue")]


def test_a_file_comes_back_as_it_was_written(tmp_path: Path):
    write_prompts(tmp_path / "p.tsv", ROWS)
    assert read_prompts(tmp_path / "p.tsv") == ROWS


def test_ids_depend_on_dataset_and_text_alone():
    assert prompt_id("d", "a") == prompt_id("d", "a")
    assert len({prompt_id("d", "a"), prompt_id("e", "a"), prompt_id("d", "b")}) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id\tprompt\tstyle\n", "no prompts"),
        ("", "wanted the columns"),
        ("id,prompt,style\n", "wanted the columns"),
        ("id\tprompt\tstyle\nd-1\t \tflat\n", "line 2"),
        ("id\tprompt\tstyle\nd-1\ta\n", "line 2"),
        ("id\tprompt\tstyle\nd-1\ta\tflat\nd-1\tb\tflat\n", "stand twice"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: str, message: str):
    path = tmp_path / "p.tsv"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"p\.tsv.*{message}"):
        read_prompts(path)


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path):
    with pytest.raises(UserError, match=r"snakemake .*p\.tsv"):
        read_prompts(tmp_path / "p.tsv")


def test_embeddings_belong_to_their_prompts(tmp_path: Path):
    path = tmp_path / "e.safetensors"
    write_embeddings(path, Conditioning({"text": torch.arange(6.0).view(2, 3)}), ROWS)
    assert torch.equal(read_embeddings(path, ROWS).tensors["text"], torch.arange(6.0).view(2, 3))
    with pytest.raises(UserError, match="other prompts"):
        read_embeddings(path, ROWS[::-1])
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="corrupt or truncated"):
        read_embeddings(path, ROWS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "hpd"}, "tiny_hpd, tiny_pick"),
        ({"split": "dev"}, "train, validation, test"),
        ({"num": 0}, "wanted at least 1"),
    ],
)
def test_the_stage_refuses_what_it_does_not_know(tmp_path: Path, change: dict, message: str):
    arguments = {"dataset": "tiny_hpd", "split": "train", "num": 4} | change
    with pytest.raises(UserError, match=message):
        stage.run(**arguments, output=tmp_path / "p.tsv")


HOLD = """
import sys, time
from pathlib import Path
from mixgrpo.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1)
"""


def test_a_lock_waits_for_the_process_that_holds_it(tmp_path: Path, capsys):
    lock = tmp_path / "run.lock"
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        start = time.monotonic()
        with locked(lock):
            waited = time.monotonic() - start
    assert waited > 0.3
    assert "waiting for it to end" in capsys.readouterr().err


def test_a_text_file_of_own_prompts_is_cleaned_and_deduplicated(tmp_path: Path):
    text = "  a red  circle \n\na blue ring\na red circle\nune étoile\n"
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    output = tmp_path / "p.tsv"
    stage.run(dataset="mine", split="test", num=3, output=output, file=tmp_path / "mine.txt")
    texts = ["a red circle", "a blue ring", "une étoile"]
    assert read_prompts(output) == [Prompt(prompt_id("mine", t), t, "own") for t in texts]
    stage.run(dataset="mine", split="test", num=2, output=output, file=tmp_path / "mine.txt")
    assert [prompt.text for prompt in read_prompts(output)] == texts[:2]


def test_a_text_file_with_too_few_prompts_or_no_text_is_refused(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("a\na\nb\n")
    arguments = {"dataset": "mine", "split": "test", "output": tmp_path / "p.tsv"}
    with pytest.raises(UserError, match="2 different prompts, but the preset asks for 3"):
        stage.run(**arguments, num=3, file=tmp_path / "mine.txt")
    with pytest.raises(UserError, match="a prompt on each line"):
        stage.run(**arguments, num=1, file=tmp_path / "no.txt")
    (tmp_path / "mine.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="a prompt on each line"):
        stage.run(**arguments, num=1, file=tmp_path / "mine.txt")


def test_what_all_prompts_share_is_kept_apart(tmp_path: Path):
    cond = Conditioning({"states": torch.arange(6.0).view(2, 3)}, {"states": torch.ones(1, 3)})
    write_embeddings(tmp_path / "e.safetensors", cond, ROWS)
    back = read_embeddings(tmp_path / "e.safetensors", ROWS)
    assert torch.equal(back.tensors["states"], cond.tensors["states"])
    assert torch.equal(back.shared["states"], cond.shared["states"])
    taken = back.take(torch.tensor([1])).repeat_interleave(2)
    assert len(taken) == 2
    assert torch.equal(taken.shared["states"], cond.shared["states"])
