"""The house stands: imports point down, every setting is read, every command in the documentation exists."""

import ast
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

from mixgrpo.__main__ import VERBS
from mixgrpo.config import Settings
from mixgrpo.planning import sheets
from mixgrpo.provenance import ROOT, constant, imports, path_of
from mixgrpo.tiny.config import PretrainConfig

PLAIN = {"errors", "config", "records", "files", "provenance", "prompts", "imports", "hub"} | {
    "imagesets",
    "folders",
    "scorefiles",
    "published_prompts",
    "devices",
    "locks",
}
ALLOWED = {
    "mixgrpo": set(),
    "errors": set(),
    "records": set(),
    "hub": {"errors"},
    "config": {"errors"},
    "files": {"errors"},
    "locks": {"errors"},
    "provenance": set(),
    "prompts": {"errors", "files", "records"},
    "imagesets": {"errors", "files"},
    "folders": {"errors", "imagesets"},
    "scorefiles": {"errors", "files"},
    "published_prompts": {"errors", "files"},
    "devices": set(),
    "imports": set(),
    "algorithm": {"config", "records"},
    "models": {"algorithm", "config", "errors", "files", "hub", "imports", "records"},
    "tiny": {"config", "errors"},
    "rewards": {"tiny", "config", "errors", "hub", "imports"},
    "training": {"models", "rewards", "algorithm", *PLAIN},
    "report": {"algorithm", "config", "errors", "files"},
    "stages": {"training", "report", "models", "rewards", "tiny", "algorithm", "cluster", *PLAIN},
    "planning": {"config", "errors", "provenance", "tiny"},
    "cluster": {"planning", "errors"},
    "__main__": {"stages", "errors", "imports", "provenance"},
}
"""What each layer may import beside itself (docs/architecture.md). A stage imports no stage: see below."""
HOMES = {
    "accelerate": {"training.distributed"},
    "torch.distributed": {"training.distributed", "training.sharding"},
    "diffusers": {"models", "rewards", "tiny"},
    "transformers": {"models", "rewards", "tiny"},
    "peft": {"models", "rewards", "tiny"},
    "pandas": {"report"},
    "matplotlib": {"report"},
    "snakemake": set(),
}
"""Where a library may be imported, and nowhere else."""
PACKAGE = ROOT / "mixgrpo"
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    home = layer(module)
    for name in imports(module, ROOT):
        if path_of(name, ROOT) is not None and name != "mixgrpo":
            assert layer(name) in ALLOWED[home] | {home}, f"{module} imports {name}"
            is_other_stage = home == layer(name) == "stages" and name not in (
                "mixgrpo.stages",
                module,
            )
            assert not is_other_stage, f"{module} imports the stage {name}"


@pytest.mark.parametrize("module", MODULES)
def test_libraries_stay_at_home(module):
    place = module.removeprefix("mixgrpo.")
    for name in imports(module, ROOT):
        for library, homes in HOMES.items():
            if name == library or name.startswith(f"{library}."):
                at_home = any(place == home or place.startswith(f"{home}.") for home in homes)
                assert at_home, f"{module} imports {name}; only {sorted(homes)} may"


def test_planning_needs_no_torch():
    for module in MODULES:
        names = set(imports(module, ROOT))
        if layer(module) in ("planning", "cluster"):
            assert "torch" not in names, module


def test_only_one_stage_asks_the_cluster():
    """The others run on it, and their code digests must not hold it."""
    for module in MODULES:
        names = {layer(name) for name in imports(module, ROOT) if name.startswith("mixgrpo.")}
        if layer(module) != "cluster" and module != "mixgrpo.stages.check_cluster":
            assert "cluster" not in names, module


def test_every_layer_says_what_lives_there():
    for path in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


# Settings


def names_read(*skip: Path) -> set[str]:
    """Every attribute that some module of the package reads, but for the modules in `skip`."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        if path in skip:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
    return found


def settings_keys(kind: type) -> set[str]:
    """Names of all fields of a dataclass and of those inside it."""
    keys = {field.name for field in fields(kind)}
    for hint in get_type_hints(kind).values():
        if is_dataclass(hint):
            keys |= settings_keys(hint)
    return keys


def test_every_setting_is_read_by_what_runs():
    """A flag that nothing reads is a lie to the person who sets it."""
    read = names_read(PACKAGE / "config.py")
    recorded = {"preset"}  # says in every settings.json which world it belongs to
    assert settings_keys(Settings) - recorded <= read


def test_every_pretraining_key_is_read():
    assert settings_keys(PretrainConfig) <= names_read(PACKAGE / "tiny/config.py")


def test_every_key_of_a_sheet_is_read():
    kinds = [
        kind for kind in vars(sheets).values() if is_dataclass(kind) and "Sheet" in kind.__name__
    ]
    kinds += [sheets.Table, sheets.Figure, sheets.Column, sheets.Row, sheets.Sweep]
    passed_on = settings_keys(sheets.EvaluationSheet)  # written whole into evaluation.json
    for kind in kinds:
        assert settings_keys(kind) - passed_on <= names_read(PACKAGE / "planning/sheets.py"), kind


# Documents


DOCUMENTS = [
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"))
    if path.exists()
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_the_documentation_exist(path):
    text = path.read_text()
    targets = set(re.findall(r"^\.PHONY: ([\w-]+)$", (ROOT / "Makefile").read_text(), flags=re.M))
    code = "\n".join(re.findall(r"`+[^`]+`+", text))
    for target in re.findall(r"(?:^|[`$;&|] ?)make ([a-z][a-z-]*)\b", code, flags=re.M):
        assert target in targets, f"{path.name}: make {target}"
    for verb in re.findall(r"python -m mixgrpo ([\w-]+)", code):
        assert verb in VERBS, f"{path.name}: python -m mixgrpo {verb}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_the_documentation_links_to_exist(path):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", path.read_text()):
        made = target.startswith(("results/", "../results/"))
        assert made or (path.parent / target).exists(), f"{path.name} links to {target}"


def test_makefile_targets_are_phony():
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: ([\w-]+)$", text, flags=re.M))
    assert phony == set(re.findall(r"^([a-z-]+):", text, flags=re.M))


# Presets


def test_components_of_the_presets_are_what_pretraining_makes():
    components = ast.literal_eval(constant("mixgrpo.stages.pretrain", "COMPONENTS"))
    for path in (ROOT / "config/presets").glob("*.yaml"):
        preset = yaml.safe_load(path.read_text())
        for sheet in [
            *preset.get("models", {}).values(),
            *preset.get("reward_models", {}).values(),
        ]:
            made = str(sheet.get("path", "")).startswith("<results>/models/")
            assert not made or Path(sheet["path"]).name in components, sheet
