"""What README and docs show runs as it stands there."""

import re
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]


def python_block(document: str, containing: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), flags=re.DOTALL)
    blocks += [
        re.sub(r"^   ", "", block, flags=re.MULTILINE)
        for block in re.findall(
            r"   ```python\n(.*?)   ```", (ROOT / document).read_text(), flags=re.DOTALL
        )
    ]
    (found,) = {block for block in blocks if containing in block and not block.startswith("   ")}
    return found


def test_readme_trains_on_one_s_own_reward(world, tmp_path, monkeypatch, capsys):
    """The block of the section "Using the package", in a results folder as `make reproduce` leaves it."""
    world.write_settings(world.root / "runs/mixgrpo/seed0/settings.json")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/tiny").symlink_to(world.root)
    monkeypatch.chdir(tmp_path)
    block = python_block("README.md", "class Redness")
    assert len([line for line in block.splitlines() if line.strip()]) <= 20
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [str(i) for i in range(10)]
    assert all(-1 < float(line.split()[1]) < 1 for line in lines)


def test_the_reward_of_the_extending_page_works(tmp_path):
    """As a file of its own, loaded by name."""
    namespace: dict = {}
    exec(
        compile(python_block("docs/extending.md", "def load"), "docs/extending.md", "exec"),
        namespace,
    )
    reward = namespace["load"](None, torch.device("cpu"))
    red = torch.zeros(1, 3, 4, 4)
    red[:, 0] = 1
    assert reward.score(red, ["red"]).tolist() == [1.0]
    assert reward.score(torch.ones(2, 3, 4, 4), ["a", "b"]).tolist() == [0.0, 0.0]
