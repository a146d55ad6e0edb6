"""Embeddings are made in shards that survive an interruption, and read a few rows at a time."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mixgrpo.errors import UserError
from mixgrpo.prompts import (
    Embeddings,
    join_embeddings,
    prompt_id,
    read_embeddings,
    read_prompts,
    write_embeddings,
)
from mixgrpo.records import Conditioning, Prompt
from mixgrpo.stages import embed

ROWS = [Prompt(prompt_id("d", text), text, "flat") for text in "abcdefg"]


def some_rows(dtype: torch.dtype = torch.float32) -> Conditioning:
    generator = torch.Generator().manual_seed(0)
    return Conditioning(
        {
            "states": torch.randn(7, 5, 3, generator=generator).to(dtype),
            "pooled": torch.randn(7, 4, generator=generator).to(dtype),
        },
        {"states": torch.ones(1, 5, 3, dtype=dtype)},
    )


def equal(found: Conditioning, wanted: Conditioning) -> bool:
    return all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in ((found.tensors, wanted.tensors), (found.shared, wanted.shared))
    )


def embed_again(world, output: Path, **changes) -> None:
    path = world.root / "models" / world.model
    embed.run(
        **({"model": world.model, "base": path, "prompts": world.prompts} | changes), output=output
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_read_as_they_are_taken(tmp_path: Path, dtype: torch.dtype):
    file, cond = tmp_path / "e.safetensors", some_rows(dtype)
    write_embeddings(file, cond, ROWS)
    embeddings = Embeddings(file, ROWS)
    assert len(embeddings) == 7
    for index in ([3], [6, 0, 0, 2], list(range(7))):
        rows = torch.tensor(index)
        assert equal(embeddings.take(rows), cond.take(rows))


def test_a_large_file_is_not_read_into_memory(tmp_path: Path):
    """300 MB; the process that opens it and takes a row grows by less than a third of that."""
    prompts = [Prompt(str(i), "x", "") for i in range(300)]
    file = tmp_path / "e.safetensors"
    write_embeddings(file, Conditioning({"states": torch.zeros(300, 512, 512)}), prompts)
    script = f"""
import resource, torch
from pathlib import Path
from mixgrpo.prompts import Embeddings
from mixgrpo.records import Prompt
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = Embeddings(Path({str(file)!r}), [Prompt(str(i), "x", "") for i in range(300)])
assert rows.take(torch.tensor([299])).tensors["states"].shape == (1, 512, 512)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", script]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 100_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [2, 3, 7])
def test_joined_shards_are_the_file_that_would_have_been_written(tmp_path: Path, dtype, size: int):
    cond, shards = some_rows(dtype), []
    for start in range(0, 7, size):
        rows = torch.arange(start, min(start + size, 7))
        shards.append(tmp_path / f"{start}.safetensors")
        write_embeddings(shards[-1], cond.take(rows), ROWS[start : start + size])
    join_embeddings(tmp_path / "joined.safetensors", shards, ROWS)
    write_embeddings(tmp_path / "at_once.safetensors", cond, ROWS)
    joined, at_once = (tmp_path / f"{name}.safetensors" for name in ("joined", "at_once"))
    assert joined.read_bytes() == at_once.read_bytes()


def test_an_interrupted_run_keeps_its_shards(world, tmp_path: Path, monkeypatch):
    output, encoded = tmp_path / "e.safetensors", []
    monkeypatch.setattr(embed, "SHARD", 3)
    load = embed.load_text_encoder

    def failing(config, device):
        encode = load(config, device)

        def once(texts):
            encoded.append(texts)
            if len(encoded) == 3:
                raise KeyboardInterrupt
            return encode(texts)

        return once

    monkeypatch.setattr(embed, "load_text_encoder", failing)
    with pytest.raises(KeyboardInterrupt):
        embed_again(world, output)
    assert not output.exists()
    (folder,) = tmp_path.glob(".e.safetensors.*.partial")
    shards = sorted(folder.glob("*.safetensors"))
    assert [shard.name for shard in shards] == ["00000.safetensors", "00001.safetensors"]
    shards[0].write_bytes(shards[0].read_bytes()[:-1])  # the disk was full, or a bad sector
    embed_again(world, output)
    texts = [prompt.text for prompt in read_prompts(world.prompts)]
    assert encoded[3:] == [texts[:3], texts[6:]]  # what was damaged and what was missing
    assert not folder.exists()
    rows = read_prompts(world.prompts)
    assert_close(read_embeddings(output, rows), read_embeddings(world.embeddings, rows))


def assert_close(found: Conditioning, wanted: Conditioning) -> None:
    for name, rows in wanted.tensors.items():
        torch.testing.assert_close(found.tensors[name], rows, rtol=1e-4, atol=1e-5)


def test_shards_of_other_prompts_or_another_precision_are_not_taken_up(
    world, tmp_path: Path, monkeypatch
):
    output = tmp_path / "e.safetensors"

    def interrupted(path, shards, prompts):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embed, "join_embeddings", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed_again(world, output)
    (first,) = tmp_path.glob(".e.safetensors.*.partial")
    embed_again(world, output, precision="bf16")
    assert not first.exists()
    assert load_file(output)["prompt_embeds"].dtype == torch.bfloat16


def test_embeddings_without_ids_are_of_other_prompts(tmp_path: Path):
    file = tmp_path / "e.safetensors"
    save_file({"states": torch.zeros(7, 2)}, file)
    with pytest.raises(UserError, match=r"are of 0 other prompts than the 7 asked for"):
        Embeddings(file, ROWS)


def test_what_the_command_line_says_wrong_is_named(world, tmp_path: Path):
    output = tmp_path / "e.safetensors"
    with pytest.raises(UserError, match=r"precision 'fp16' is unknown. There are: fp32, bf16"):
        embed_again(world, output, precision="fp16")
    with pytest.raises(UserError, match=r"revision='main': wanted a commit"):
        embed_again(world, output, base=Path("a/b"), revision="main")
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        embed_again(world, output, base=tmp_path / "nowhere")
    assert not output.exists()
