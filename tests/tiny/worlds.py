"""Barely trained components, by the stage that users run."""

import json
from pathlib import Path

from mixgrpo.stages import pretrain

STEPS = {
    "num_pictures": 64,
    "vae_steps": 3,
    "flow_steps": 3,
    "sd3_steps": 3,
    "clip_steps": 3,
    "judge_steps": 3,
}


def train(component: str, root: Path, **settings: object) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "settings.json").write_text(json.dumps(STEPS | settings))
    output = root / component
    pretrain.run(settings=root / "settings.json", component=component, output=output)
    return output


def content(directory: Path) -> dict[str, bytes]:
    """Every file but the record of seconds, by name."""
    files = (file for file in directory.rglob("*") if file.is_file())
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in files
        if file.name != "pretrain.json"
    }
