"""Lock files, Makefile, environment.yml and docs/install.md say the same."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"^([\w.-]+)(?:\[[\w,]+\])?==(\S+)$", flags=re.M)
"""A name, perhaps with extras, and its version."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    return {canonical(name): version for name, version in PIN.findall(text)}


def pins_of(file: str) -> dict[str, str]:
    return pins((ROOT / file).read_text())


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[<>=\[]", requirement)[0]) for requirement in requirements}


LOCK = pins_of("requirements.lock")
NODEPS = pins_of("requirements-nodeps.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def conda() -> dict[str, str]:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (lines,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    found = pins("\n".join(lines))
    assert len(found) == len(lines)
    return found


def test_every_line_of_a_lock_file_is_a_pin():
    for file in ("requirements.lock", "requirements-nodeps.lock"):
        lines = [line for line in (ROOT / file).read_text().splitlines() if line[:1] != "#"]
        assert len(pins_of(file)) == len(lines), file
    assert not LOCK.keys() & NODEPS.keys()


def test_environment_yml_has_the_pins_of_the_lock_file():
    assert conda().items() <= LOCK.items()


def test_lock_file_and_environment_yml_cover_pyproject():
    wanted = names(PROJECT["dependencies"] + EXTRAS["dev"] + EXTRAS["rewards"])
    assert wanted <= LOCK.keys()
    assert wanted == conda().keys()


def test_conda_s_second_step_is_the_second_lock_file():
    script = (ROOT / "environment.post-deploy.sh").read_text()
    command = script[script.index("pip install --no-deps") :]
    found = dict(re.findall(r"([\w.-]+)==(\S+)", command))
    assert {canonical(name): version for name, version in found.items()} == NODEPS
    subprocess.run(["bash", "-n", str(ROOT / "environment.post-deploy.sh")], check=True)


def test_torchvision_is_installed_with_nothing_but_the_extra_for_gpus():
    assert "torchvision" not in LOCK.keys() | NODEPS.keys()
    has_it = {extra for extra, wanted in EXTRAS.items() if "torchvision" in names(wanted)}
    assert has_it == {"gpu"}
    assert "torchvision" not in names(PROJECT["dependencies"])


def test_the_makefile_installs_anew_when_a_lock_file_changes():
    text = (ROOT / "Makefile").read_text()
    (locks,) = re.findall(r"^LOCKS := (.*)$", text, flags=re.M)
    assert locks.split() == ["requirements.lock", "requirements-nodeps.lock"]
    assert "$(shell cat $(LOCKS) | cksum" in text
    assert "\n$(STAMP): $(LOCKS)\n" in text
    recipe = text[text.index("\n$(STAMP): $(LOCKS)\n") :].replace("\\\n\t\t", "")
    assert re.search(r"pip install [^\n]*-r requirements\.lock\n", recipe)
    assert re.search(r"pip install [^\n]*--no-deps -r requirements-nodeps\.lock -e \.\n", recipe)


def test_what_is_installed_is_what_the_lock_files_say():
    """Otherwise the tests say nothing about what users get."""
    freeze = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    lines = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout
    installed = {name: version.split("+")[0] for name, version in pins(lines).items()}
    wanted = LOCK | NODEPS
    assert {name: installed.get(name) for name in wanted} == wanted


def test_the_complaints_of_pip_check_are_explained():
    check = [sys.executable, "-m", "pip", "check"]
    said = subprocess.run(check, capture_output=True, text=True).stdout
    pattern = r"^(\S+) \S+ (?:requires|has requirement) ([^\s,]+(?:,[^\s,]+)*),"
    complaints = {(canonical(n), wants) for n, wants in re.findall(pattern, said, flags=re.M)}
    complaints = {(name, wants) for name, wants in complaints if name in LOCK | NODEPS}
    rows = re.findall(
        r"^\| ([\w-]+) \| `([^`]+)` \|", (ROOT / "docs/install.md").read_text(), flags=re.M
    )
    explained = {(name, wants) for name, wants in rows}
    assert len(explained) == len(rows)
    assert complaints <= explained
    if importlib.util.find_spec("torchvision") is None:
        assert complaints == explained
    assert {name for name, _ in explained} == NODEPS.keys()
