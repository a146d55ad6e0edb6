"""Which preset `make overhead` takes, what it says when that is not the paper's size, and mistakes in a preset."""

import importlib.util
import shutil
import subprocess
from types import ModuleType

import pytest
import torch
import yaml

from mixgrpo.errors import UserError
from mixgrpo.planning.cost_sheets import OverheadSheet
from mixgrpo.planning.load import load
from mixgrpo.provenance import ROOT

GB = 10**9


@pytest.fixture(scope="module")
def preset() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "overhead_preset", ROOT / "benchmarks/overhead_preset.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is one with so much free memory, or a driver alone."""

    def pretend(free: int | None, *, smi: str | None = "/usr/bin/nvidia-smi") -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: free is not None)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, free))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
        monkeypatch.setattr(shutil, "which", lambda _: smi)

    return pretend


def said(preset, capsys, monkeypatch) -> tuple[str, str]:
    monkeypatch.chdir(ROOT)
    preset.main()
    out, err = capsys.readouterr()
    return out.strip(), err


def test_a_large_gpu_measures_the_paper_s_size(preset, gpu, capsys, monkeypatch):
    gpu(80 * GB)
    out, err = said(preset, capsys, monkeypatch)
    assert out == "overhead"
    assert "Not the paper's size" not in err


@pytest.mark.parametrize(
    ("free", "smi", "message"),
    [
        (None, None, "there is no NVIDIA GPU"),
        (None, "/usr/bin/nvidia-smi", "its driver is too old for this build"),
        (24 * GB, "/usr/bin/nvidia-smi", "Some GPU: training needs about 34 GB, 24 GB are free"),
    ],
)
def test_otherwise_it_says_why_not(preset, gpu, capsys, monkeypatch, free, smi, message):
    gpu(free, smi=smi)
    out, err = said(preset, capsys, monkeypatch)
    assert out == "overhead_small"
    assert message in err


def test_a_preset_that_asks_for_the_impossible():
    with pytest.raises(ValueError, match=r"overhead\.repetitions=0"):
        OverheadSheet(repetitions=0)
    with pytest.raises(ValueError, match="name each once"):
        OverheadSheet(paths=["one_by_one"])


def test_a_table_that_there_is_not(tmp_path):
    shutil.copytree(ROOT / "config", tmp_path / "config")
    path = tmp_path / "config/presets/overhead.yaml"
    data = yaml.safe_load(path.read_text())
    data["overhead"]["tables"] = ["table3"]
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(UserError, match="table3"):
        load(tmp_path / "config", {"preset": "overhead"})


def test_make_hands_the_preset_on():
    """Without one, the machine decides; a preset on the command line is obeyed."""
    line = ["make", "-n", "overhead"]
    asked, free = (
        subprocess.run([*line, *more], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for more in (["PRESET=overhead_small"], [])
    )
    assert 'preset="overhead_small"' in asked
    assert 'preset=""' in free
