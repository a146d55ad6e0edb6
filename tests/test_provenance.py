"""The digest changes with what a stage runs, and with nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from mixgrpo import provenance

FILES = {
    "__init__.py": "",
    "stages/__init__.py": "",
    "stages/train.py": "from mixgrpo.loop import run\nfrom .helper import rate\n",
    "stages/helper.py": "rate = 1\n",
    "stages/score.py": "import mixgrpo.loop\n",
    "loop.py": (
        '"""Docstring."""\n\n\ndef run(x):\n    """Another."""\n    import mixgrpo.lazy\n\n'
        "    return mixgrpo.lazy.twice(x)  # why\n"
    ),
    "lazy.py": "import math\n\n\ndef twice(x):\n    return 2 * x\n",
    "other.py": "y = 2\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "mixgrpo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def digest(root: Path, *modules: str) -> str:
    for cached in (provenance.parse, provenance.closure, provenance.digest):
        cached.cache_clear()
    return provenance.digest(*modules, root=root)


def edit(root: Path, name: str, text: str) -> None:
    (root / "mixgrpo" / name).write_text(text)


def test_closure_follows_absolute_relative_and_function_level_imports_and_parents(package):
    provenance.closure.cache_clear()
    assert provenance.closure("mixgrpo.stages.train", package) == {
        "mixgrpo",
        "mixgrpo.stages",
        "mixgrpo.stages.train",
        "mixgrpo.stages.helper",
        "mixgrpo.loop",
        "mixgrpo.lazy",
    }


@pytest.mark.parametrize(
    ("name", "text", "changes"),
    [
        ("lazy.py", "import math\n\n\ndef twice(x):\n    return x + x\n", True),
        ("stages/helper.py", "rate = 2\n", True),
        ("stages/__init__.py", "import mixgrpo.other\n", True),
        ("other.py", "y = 3\n", False),
        ("stages/score.py", "import mixgrpo.lazy\n", False),
        ("stages/helper.py", "# a comment\nrate  =  1\n", False),
        (
            "lazy.py",
            '"""Now documented."""\nimport math\n\ndef twice(x):\n    return (2 * x)\n',
            False,
        ),
    ],
)
def test_digest_changes_with_the_code_that_runs(package, name, text, changes):
    before = digest(package, "mixgrpo.stages.train")
    edit(package, name, text)
    assert (digest(package, "mixgrpo.stages.train") != before) is changes


def test_digest_covers_the_modules_that_settings_name(package):
    before = digest(package, "mixgrpo.stages.train", "mixgrpo.other")
    edit(package, "other.py", "y = 3\n")
    assert digest(package, "mixgrpo.stages.train", "mixgrpo.other") != before


def test_attribute_docstrings_do_not_count(package):
    edit(package, "stages/helper.py", "class A:\n    rate: int = 1\n")
    before = digest(package, "mixgrpo.stages.train")
    edit(package, "stages/helper.py", 'class A:\n    rate: int = 1\n    """Per step."""\n')
    assert digest(package, "mixgrpo.stages.train") == before


def test_a_module_that_is_not_there_is_an_error(package):
    with pytest.raises(ValueError, match=r"mixgrpo\.rewards\.nosuch has no file"):
        digest(package, "mixgrpo.rewards.nosuch")


def test_train_covers_its_rewards_and_no_other():
    modules = provenance.stage_modules("train", models=["flux"], rewards=["tiny_hps"])
    reached = set().union(*(provenance.closure(module) for module in modules))
    assert {"mixgrpo.models.flux", "mixgrpo.rewards.tiny_hps"} <= reached
    assert not {"mixgrpo.rewards.tiny_clip_score", "mixgrpo.rewards.sharpness"} & reached
    assert not [name for name in reached if name.startswith(("mixgrpo.report", "mixgrpo.planning"))]


def test_a_judge_is_not_stale_when_the_base_model_changes():
    judge = provenance.stage_modules("pretrain", component="tiny_image_reward")
    reached = set().union(*(provenance.closure(module) for module in judge))
    assert "mixgrpo.tiny.flux_base" not in reached


def test_planned_code_names_what_the_job_checks():
    planned = provenance.planned_code(*provenance.stage_modules("embed", models=["flux"]))
    found, _, modules = planned.partition(":")
    assert provenance.digest(*modules.split(",")) == found


def test_planning_does_not_import_torch():
    code = (
        "import sys, mixgrpo.planning.load, mixgrpo.planning.plan, mixgrpo.planning.forecast\n"
        "found = {'torch', 'pandas', 'matplotlib', 'transformers'} & set(sys.modules)\n"
        "sys.exit(', '.join(found) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
