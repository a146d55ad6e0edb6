"""What is stale after which edit: real Snakemake on a copy of the workflow whose results look finished."""

import re
import subprocess

import pytest
import yaml

from tests.workflow.checkout import OF_SD3, PRESET, TRAINED, UNTRAINED, cells, names, rules

BASE_WORLD = {"pretrain_model", "pretrain_sd3", "pretrain_reward", "prompts", "embed"}
RUN = {"settings", "train", "generate", "score"}
EVERY_TABLE = {f"table{number:02d}" for number in range(1, 15)}


def test_finished_means_nothing_to_do(checkout):
    assert len(TRAINED) == 49
    assert checkout.stale() == set()
    assert "Nothing to be done" in checkout.snakemake("-n", "--config", PRESET).stdout


# An edit of config/


def test_one_cells_override_makes_that_cell_stale_and_what_shows_it(checkout):
    checkout.edit("config/cells.yaml", r"(mixgrpo_window2:.*?)size: 2", r"\1size: 3")
    stale = checkout.stale()
    assert cells(stale, *RUN) == {"mixgrpo_window2"}
    assert rules(stale) == {*RUN, "table", "page"}
    assert names(stale, "table") == {"table06", "table13"}


def test_a_timed_cell_is_measured_again_with_its_table(checkout):
    checkout.edit("config/cells.yaml", r"(flash_r06:.*?)tail_ratio: 0.6", r"\1tail_ratio: 0.7")
    stale = checkout.stale()
    assert cells(stale, *RUN) == {"flash_r06"}
    assert names(stale, "overhead") == {"flux"}
    assert names(stale, "table") == {"table01", "table09"}
    assert names(stale, "figure") == {"figure01"}


def test_a_base_value_makes_every_cell_that_inherits_it_stale(checkout):
    checkout.edit("config/config.yaml", "max_grad_norm: 1.0", "max_grad_norm: 2.0")
    stale = checkout.stale()
    assert cells(stale, "train", "generate", "score") == TRAINED
    assert names(stale, "table") == EVERY_TABLE
    assert not rules(stale) & BASE_WORLD


def test_a_base_value_spares_the_cells_that_override_it(checkout):
    checkout.edit("config/config.yaml", "^  interval: 25", "  interval: 24")
    overriding = {
        name for name in TRAINED if re.match("(mixgrpo|pick)_(interval|exp)|flash(?!_star)", name)
    }
    assert {"pick_exp", "pick_interval15", "flash_r02"} <= overriding
    assert cells(checkout.stale(), "train", "generate", "score") == TRAINED - overriding


def test_what_a_base_model_changes_makes_only_its_cells_stale(checkout):
    checkout.edit("config/models/sd3.yaml", "rank: 32", "rank: 16")
    stale = checkout.stale()
    assert cells(stale, "train", "generate", "score") == OF_SD3
    assert names(stale, "table") == {"table03"}


def test_an_overridden_base_value_makes_nothing_stale(checkout):
    checkout.edit("config/config.yaml", "num_iterations: 300", "num_iterations: 299")
    assert checkout.stale() == set()


def test_layout_comments_and_touching_make_nothing_stale(checkout):
    for path in [*checkout.root.glob("config/**/*.yaml")]:
        data = yaml.safe_load(path.read_text())
        path.write_text(f"# new\n{yaml.safe_dump(data, sort_keys=True)}")
    checkout.edit("config/config.yaml", "learning_rate: 1.0e-05", "learning_rate: 1e-5")
    checkout.edit("mixgrpo/stages/train.py", '"""Train one cell', '"""Train a cell')
    checkout.append("mixgrpo/algorithm/loss.py", "\n\n# a comment\n")
    for path in [*checkout.root.glob("mixgrpo/**/*.py"), *checkout.root.glob("config/**/*.csv")]:
        path.touch()
    assert checkout.stale() == set()


def test_a_new_reward_scores_every_cell_and_trains_none(checkout):
    measure = checkout.root / "mixgrpo/rewards/sharpness.py"
    (measure.parent / "redness.py").write_text(measure.read_text())
    checkout.edit(
        "config/presets/tiny.yaml",
        "^  sharpness: .name: sharpness.",
        r"\g<0>\n  redness: {name: redness}",
    )
    checkout.edit(
        "config/tables.yaml",
        "^  sharpness: .*?$",
        r"\g<0>\n  redness: {header: Redness, digits: 1}",
    )
    stale = checkout.stale()
    assert cells(stale, "score") == TRAINED | UNTRAINED
    assert not rules(stale) & {*BASE_WORLD, "settings", "train", "generate", "overhead"}


def test_a_table_row_that_reuses_a_cell_trains_nothing(checkout):
    checkout.edit(
        "config/tables.yaml",
        r"(  table04:.*?    rows:\n)",
        r"\1      - {cell: mixgrpo_stride4, label: stride 4}\n",
    )
    stale = checkout.stale()
    assert rules(stale) == {"table_spec", "table", "page"}
    assert names(stale, "table") == {"table04"}


def test_a_title_makes_one_table_again(checkout):
    checkout.edit("config/tables.yaml", '"Table 1: ', '"Table One: ')
    stale = checkout.stale()
    assert rules(stale) == {"table_spec", "table", "page"}
    assert names(stale, "table") == {"table01"}


def test_the_order_of_rows_is_seen(checkout):
    checkout.edit(
        "config/figures.yaml",
        r"(^figure03:.*?)( +- .cell: mixgrpo,[^\n]*\n)( +- .cell: flash,[^\n]*\n)",
        r"\1\3\2",
    )
    stale = checkout.stale()
    assert rules(stale) == {"figure_spec", "figure", "page"}
    assert names(stale, "figure") == {"figure03"}


def test_another_set_of_pictures_generates_and_scores_but_does_not_train(checkout):
    checkout.edit("config/tables.yaml", r"(  table03:.*?)p_mix: 0.8", r"\1p_mix: 0.6")
    stale = checkout.stale()
    assert cells(stale, "evaluation", "generate", "score") == OF_SD3
    assert not rules(stale) & {*BASE_WORLD, "settings", "train", "overhead"}


def test_another_seed_trains_only_that(checkout):
    trained = {output for rule, output in checkout.stale("seeds=[0,1]") if rule == "train"}
    assert len({output.rpartition("/")[0] for output in trained}) == len(TRAINED)
    assert all("/seed1/" in output for output in trained)


def test_the_sweep_is_no_part_of_all_and_shares_the_base_world(checkout):
    assert not any("sweep" in row["output_file"] for row in checkout.summary())
    options = ("-n", "--quiet", "rules", "--config", PRESET, "--", "sweep")
    planned = checkout.snakemake(*options).stdout
    assert "pretrain_model" not in planned
    sweep = yaml.safe_load((checkout.root / "config/sweep.yaml").read_text())
    runs = len(sweep["cells"]) * len(sweep["values"]) * len(sweep["seeds"])
    assert re.search(rf"^train +{runs}$", planned, flags=re.M)


# An edit of mixgrpo/


@pytest.mark.parametrize(
    ("module", "reruns", "spares"),
    [
        ("algorithm/loss", {"settings", "overhead"}, {*BASE_WORLD, "evaluation"}),
        ("training/hybrid", {"generate"}, {*BASE_WORLD, "settings", "train", "overhead"}),
        ("tiny/flux_base", {"pretrain_model"}, {"prompts", "settings", "pretrain_reward"}),
        ("report/latex", {"table"}, {*BASE_WORLD, *RUN, "figure"}),
        ("stages/page", {"page"}, {*BASE_WORLD, *RUN, "figure", "table"}),
        ("planning/forecast", set(), {*BASE_WORLD, *RUN, "figure", "table", "page"}),
    ],
)
def test_a_module_reruns_the_rules_whose_imports_reach_it(checkout, module, reruns, spares):
    checkout.append(f"mixgrpo/{module}.py")
    stale = checkout.stale()
    assert reruns <= rules(stale)
    assert not rules(stale) & spares


def test_the_algorithm_retrains_every_cell(checkout):
    checkout.append("mixgrpo/algorithm/loss.py")
    assert cells(checkout.stale(), "train") == TRAINED


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("training_curves", {"training_curves"}),
        (
            "image_grid",
            {"figure03", "figure04", "figure05", "figure_hps", "figure_hps_clip"}
            | {"figure_multi", "figure_sd3"},
        ),
    ],
)
def test_plotting_code_redraws_its_figures_only(checkout, module, expected):
    checkout.append(f"mixgrpo/report/{module}.py")
    stale = checkout.stale()
    assert rules(stale) == {"figure", "page"}
    assert names(stale, "figure") == expected


def test_a_trained_reward_retrains_the_cells_that_train_on_it(checkout):
    checkout.append("mixgrpo/rewards/tiny_clip_score.py")
    stale = checkout.stale()
    assert cells(stale, "train") == {"dancegrpo_hps_clip", "mixgrpo_hps_clip"}
    assert cells(stale, "score") == TRAINED | UNTRAINED


def test_a_measure_that_nothing_trains_on_retrains_nothing(checkout):
    checkout.append("mixgrpo/rewards/sharpness.py")
    stale = checkout.stale()
    assert not rules(stale) & {*BASE_WORLD, "settings", "train", "generate", "overhead"}
    assert cells(stale, "score") == TRAINED | UNTRAINED


# Mistakes


def test_mistakes_are_told_without_a_traceback_before_anything_runs(checkout):
    checkout.edit("config/cells.yaml", "method: flash$", "method: flahs")
    failed = checkout.snakemake("--cores", "1", "--config", PRESET, check=False)
    assert failed.returncode != 0
    message = "config/cells.yaml: flash.method: 'flahs' is not known; did you mean 'flash'?"
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    failed = checkout.snakemake("-n", "--config", "presett=smoke", check=False)
    assert "presett" in failed.stdout


def test_a_job_refuses_code_that_changed_after_it_was_planned(checkout):
    """Planned with one scorer, started with another: the job says so and writes nothing."""
    planned = checkout.snakemake("-n", "-p", "--forcerun", "prompts", "--config", PRESET)
    command = re.search(r"python -m mixgrpo prompts .*tiny_hpd_test.*", planned.stdout)
    assert command is not None
    checkout.append("mixgrpo/tiny/grammar.py")
    line = command[0].split(" > ")[0]
    run = subprocess.run(
        ["bash", "-c", line],
        cwd=checkout.root,
        env=checkout.environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "changed after it was planned" in run.stderr
    assert "Traceback" not in run.stderr
