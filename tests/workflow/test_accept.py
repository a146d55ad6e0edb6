"""`make accept`: a change of code is recorded, and nothing else is."""

import re

from tests.workflow.checkout import OF_SD3, TRAINED, cells, rules


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_a_change_of_code_is_accepted_and_nothing_reruns(own_checkout):
    own_checkout.append("mixgrpo/algorithm/loss.py")
    own_checkout.append("mixgrpo/rewards/sharpness.py")
    assert cells(own_checkout.stale(), "train") == TRAINED
    said = one_line(own_checkout.planning("accept"))
    assert f"{len(TRAINED)} cells" in said
    assert "the code of training changed" in said
    assert "its scores: the code of scoring changed" in said
    assert own_checkout.stale() == set()
    assert "Nothing to accept" in own_checkout.planning("accept")


def test_the_settings_of_an_accepted_run_name_the_code_as_it_is_now(own_checkout):
    """Training refuses other code than its settings name, so a run that is made later would be refused."""
    settings = own_checkout.root / "results/smoke/runs/flash/seed0/settings.json"
    own_checkout.append("mixgrpo/algorithm/loss.py")
    own_checkout.planning("accept", "--tables", "8")
    program = (
        "from pathlib import Path; from mixgrpo.config import read_settings; "
        "from mixgrpo.stages.train import refuse_other_code as refuse; "
        f"refuse(read_settings(Path('{settings}')), Path('{settings}'))"
    )
    own_checkout.run("python", "-c", program)


def test_what_is_missing_or_has_other_settings_is_not_accepted(own_checkout):
    results = own_checkout.root / "results/smoke"
    (results / "runs/flash/seed0/model.safetensors").unlink()
    own_checkout.edit("config/models/sd3.yaml", "rank: 32", "rank: 16")
    own_checkout.append("mixgrpo/algorithm/loss.py")
    tables = ("--tables", "3 8")
    said = one_line(own_checkout.planning("accept", *tables))
    accepted, _, left = said.partition("Still to be made")
    assert "3 cells (flash_heun, flash_order1, flash_order3): the code of training" in accepted
    assert "flash, seed 0: not made yet" in left
    assert "training.lora.rank 32 -> 16" in left
    planned = own_checkout.snakemake("-n", *own_checkout.planning("targets", *tables).split()[:-2])
    assert set(re.findall(r"Training (\w+), seed 0", planned.stdout)) == {"flash", *OF_SD3}
    assert not (results / "runs/flash/seed0/model.safetensors").exists()


def test_a_new_row_that_shows_only_after_its_cell_is_not_accepted(own_checkout):
    """A table that is stale by code and by its sheet is still to be made."""
    own_checkout.edit("config/tables.yaml", '"Table 1: ', '"Table One: ')
    own_checkout.append("mixgrpo/report/latex.py")
    said = one_line(own_checkout.planning("accept"))
    assert "13 tables" in said
    assert rules(own_checkout.stale()) == {"table_spec", "table", "page"}
