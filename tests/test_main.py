"""The command line: one message and exit code 1 for what a person can mend, never a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from mixgrpo.__main__ import VERBS, main, stage_of
from mixgrpo.provenance import planned_code


def test_every_verb_is_a_stage_that_takes_its_options():
    for verb, options in VERBS.items():
        module = __import__(f"mixgrpo.stages.{stage_of(verb)}", fromlist=["run"])
        taken = module.run.__kwdefaults__ or {}
        names = module.run.__code__.co_varnames[: module.run.__code__.co_kwonlyargcount]
        assert set(options) == set(names), verb
        assert set(taken) <= set(options)


def embed(tmp_path: Path, *more: str) -> list[str]:
    return [
        "embed",
        *("--model", "flux"),
        *("--base", str(tmp_path / "none")),
        *("--prompts", str(tmp_path / "none.tsv")),
        *("--output", str(tmp_path / "out.safetensors")),
        *more,
    ]


def test_a_mistake_is_one_line_on_stderr(tmp_path, capsys):
    assert main(embed(tmp_path)) == 1
    error = capsys.readouterr().err
    assert error.startswith("mixgrpo embed: error: prompts file")
    assert "Traceback" not in error


def test_code_that_is_not_what_was_planned_is_refused(tmp_path, capsys):
    planned = planned_code("mixgrpo.stages.embed", "mixgrpo.models.flux")
    assert main(embed(tmp_path, "--code", planned)) == 1
    assert "prompts file" in capsys.readouterr().err  # the code is right; it goes on to its inputs
    other = "0" * 12 + planned[12:]
    assert main(embed(tmp_path, "--code", other)) == 1
    assert "changed after it was planned" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tracker", "message"), [("sheets", "is unknown"), ("wandb", "not installed")]
)
def test_a_tracker_that_is_not_there_is_refused(tmp_path, capsys, monkeypatch, tracker, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = ("settings", "prompts", "embeddings", "checkpoints", "model", "metrics")
    paths = [part for name in options for part in (f"--{name}", str(tmp_path / name))]
    assert main(["train", *paths, "--tracker", tracker]) == 1
    assert message in capsys.readouterr().err


def test_it_runs_as_a_module():
    run = subprocess.run(
        [sys.executable, "-m", "mixgrpo", "--help"], capture_output=True, text=True, check=True
    )
    assert all(verb in run.stdout for verb in VERBS)
