import json
from pathlib import Path

import pytest

from mixgrpo.errors import UserError
from mixgrpo.tiny.config import PretrainConfig, parse, read_pretrain_config


def test_an_empty_block_is_the_defaults_and_a_written_one_comes_back(tmp_path: Path):
    assert parse({}, where="test") == PretrainConfig()
    file = tmp_path / "pretrain.json"
    file.write_text(json.dumps({"vae_channels": [8, 8, 8], "vae_steps": 3}))
    config = read_pretrain_config(file)
    assert config == PretrainConfig(vae_channels=(8, 8, 8), vae_steps=3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"vae_step": 3}, r"vae_step: got 3.*nexpected"),
        ({"vae_steps": 3.5}, r"vae_steps: got 3.5"),
        ({"vae_steps": "3"}, r"vae_steps: got '3'"),
        ({"flow_steps": 0}, r"flow_steps=0 must be positive"),
        ({"width": 40}, r"width=40 must be a multiple of 16"),
        ({"vae_channels": [8, 8]}, r"vae_channels=\[8, 8\] must be three multiples of 8"),
        ({"vae_channels": [8, 8, -8]}, r"vae_channels=\(8, 8, -8\) must be positive"),
        ({"flow_average": 1.0}, r"flow_average=1.0 must be below 1"),
        ({"sd3_caption_dropout": 1.0}, r"sd3_caption_dropout=1.0 must be below 1"),
        (None, r"test: pretraining settings do not hold"),
    ],
)
def test_a_bad_value_is_named(data: object, message: str):
    with pytest.raises(UserError, match=message):
        parse(data, where="test")


def test_a_missing_or_broken_file_is_named(tmp_path: Path):
    file = tmp_path / "pretrain.json"
    with pytest.raises(UserError, match=r"no such file.*snakemake"):
        read_pretrain_config(file)
    file.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_pretrain_config(file)
