"""Barely trained weights of every reward that has some, made once by the stage that users run."""

import json

import pytest

from mixgrpo.stages import pretrain

TRAINED = tuple(c for c in pretrain.COMPONENTS if c.startswith("tiny_"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """The path of each reward that has weights; None for the others."""
    root = tmp_path_factory.mktemp("rewards")
    settings = root / "pretrain.json"
    settings.write_text(json.dumps({"num_pictures": 96, "clip_steps": 3, "judge_steps": 3}))
    for component in TRAINED:
        pretrain.run(settings=settings, component=component, output=root / component)
    return {"colorfulness": None, "sharpness": None} | {c: str(root / c) for c in TRAINED}
