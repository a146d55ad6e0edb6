"""Commands end in time, whatever they do, and say what they said."""

import time

from mixgrpo.cluster.commands import COMMANDS, ask, missing_commands


def test_an_answer():
    answer = ask("sh", "-c", "echo yes; echo 'sbatch: error: no' >&2; echo more >&2; exit 3")
    assert (answer.status, answer.text, answer.complaint) == (3, "yes\n", "no")
    assert not answer.is_good


def test_a_command_that_is_not_there():
    assert ask("no-such-command-of-slurm").status == 127


def test_one_that_hangs_is_told_to_stop_first(tmp_path):
    """A killed srun would leave its request in the queue."""
    start = time.monotonic()
    script = f"trap 'echo ended > {tmp_path}/ended; exit' TERM; sleep 20 & wait"
    assert ask("sh", "-c", script, patience=0.5).status is None
    assert (tmp_path / "ended").read_text() == "ended\n"
    assert time.monotonic() - start < 5


def test_it_is_no_part_of_a_job_that_it_is_called_in(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    text = ask("env").text
    assert "SLURM_JOB_ID" not in text
    assert "SLURM_CONF=/etc/slurm/slurm.conf" in text


def test_missing_commands_are_named_together():
    assert missing_commands(lambda name: f"/usr/bin/{name}") == []
    (one,) = missing_commands(lambda name: None if name == "sacct" else name)
    assert one.startswith("Slurm's sacct is not on PATH.")
    (all_,) = missing_commands(lambda name: None)
    assert all(name in all_ for name in COMMANDS)
    assert "module load slurm" in all_
