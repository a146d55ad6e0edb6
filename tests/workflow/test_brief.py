"""The logger plugin that `make reproduce` shows its progress by."""

import doctest
import io
import logging
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from tests.workflow.checkout import ROOT

sys.path.insert(0, str(ROOT / "workflow/plugins"))

import snakemake_logger_plugin_brief as brief
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_logger_plugin_brief import progress
from snakemake_logger_plugin_brief.progress import Progress, read_progress, seconds, span


def write_bar(log: Path, *, done: int, **options) -> None:
    """What a job's log holds when it is `done` of 60."""
    stream = io.StringIO()
    bar = tqdm(total=60, file=stream, mininterval=0, miniters=1, **options)
    for _ in range(done):
        bar.update()
    bar.set_postfix(reward="0.123")
    log.write_text(f"a warning: 1/2 of it\n{stream.getvalue()}")


def test_progress_is_read_from_tqdms_own_bar(tmp_path):
    write_bar(tmp_path / "log", done=23, unit="iteration")
    bar = read_progress(tmp_path / "log")
    assert bar is not None
    assert (bar.done, bar.total, bar.unit) == (23, 60, "iteration")
    assert str(bar).startswith("23 of 60 iterations, about 0 s left")


def test_a_slow_bar_and_a_named_one(tmp_path):
    log = tmp_path / "log"
    log.write_text("flow:  38%|###  | 23/60 [01:10<1:00:16,  3.05s/step, loss=1]")
    assert read_progress(log) == Progress("flow", 23, 60, "step", 3616)
    assert str(read_progress(log)) == "flow: 23 of 60 steps, about 60 min left"


def test_a_bar_at_its_start_and_at_its_end(tmp_path):
    write_bar(tmp_path / "log", done=0, unit="file")
    assert str(read_progress(tmp_path / "log")) == "0 of 60 files"
    write_bar(tmp_path / "log", done=60, unit="file")
    assert str(read_progress(tmp_path / "log")) == "60 of 60 files, finishing"


def test_a_log_without_a_bar(tmp_path):
    (tmp_path / "log").write_text("nothing of the kind")
    assert read_progress(tmp_path / "log") is None
    assert read_progress(tmp_path / "absent") is None


def test_examples_in_docstrings_hold():
    assert doctest.testmod(progress).failed == 0


def test_times_in_words():
    assert [seconds("1:01:01"), seconds("?")] == [3661, None]
    assert [span(89), span(200), span(9000)] == ["89 s", "3 min", "2.5 h"]


@pytest.fixture
def handler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(brief, "BEAT", 0.05)
    monkeypatch.setattr(brief, "REPORT", 0.1)
    handler = brief.LogHandler(SimpleNamespace(dryrun=False), None)
    yield handler
    handler.close()


def event(kind: LogEvent, **fields) -> logging.LogRecord:
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, None, None, None)
    record.__dict__.update(event=kind, **fields)
    return record


def test_a_long_job_says_how_far_it_is_and_leaves_no_trace(handler, tmp_path, capsys):
    write_bar(tmp_path / "log", done=23, unit="iteration")
    handler.emit(event(LogEvent.RUN_INFO, stats={"total": 180}))
    started = {"rule_msg": "Training mixgrpo, seed 0", "jobid": 7, "log": ["log"]}
    handler.emit(event(LogEvent.JOB_INFO, **started))
    time.sleep(0.5)
    (state,) = (tmp_path / "logs/running").glob("*.json")
    assert "23 of 60 iterations" in state.read_text()
    handler.emit(event(LogEvent.JOB_FINISHED, job_id=7))
    handler.emit(event(LogEvent.PROGRESS, done=1, total=180))
    handler.close()
    said = capsys.readouterr().err
    assert "    0/180  Training mixgrpo, seed 0: 23 of 60 iterations, about 0 s left" in said
    assert "    1/180  Training mixgrpo, seed 0: done in 1 s" in said or "done in 0 s" in said
    assert not list((tmp_path / "logs/running").iterdir())


def test_of_many_processes_the_first_to_fail_is_shown(handler, tmp_path, capsys):
    """srun's labels first; one process fails, all others lose it, and the launchers write boxes."""
    log, submission = tmp_path / "train.log", tmp_path / "12.log"
    cause = "1: [rank3]: ValueError: reward of batch 7 is NaN"
    log.write_text("\n".join(["0: starting", cause, *(f"0: lost a peer {n}" for n in range(40))]))
    submission.write_text("of no interest\n")
    handler.emit(
        event(LogEvent.JOB_ERROR, jobid=1, rule_name="train", log=[str(log), str(submission)])
    )
    told = capsys.readouterr().err
    assert cause in told
    assert "lost a peer 39" in told
    assert "lost a peer 3\n" not in told
    assert "of no interest" not in told
    assert str(submission) in told


def test_a_job_that_wrote_no_log_shows_that_of_its_submission(handler, tmp_path, capsys):
    (tmp_path / "12.log").write_text("the node lost its disk\n")
    logs = [str(tmp_path / "train.log"), str(tmp_path / "12.log")]
    handler.emit(event(LogEvent.JOB_ERROR, jobid=1, rule_name="train", log=logs))
    assert "the node lost its disk" in capsys.readouterr().err
