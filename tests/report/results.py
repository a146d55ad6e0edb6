"""Results on disk, as the stages before `table` and `figure` write them, with values a test chooses."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mixgrpo.stages import table

NOISE_SEED = 42


def write_scores(
    folder: Path,
    cell: str,
    seed: int,
    values: Mapping[str, Sequence[float]],
    *,
    p_mix: float = 0.8,
    noise_seed: int = NOISE_SEED,
    dataset: str = "hpd",
) -> Path:
    """scores/{cell}/seed{seed}: `values` reward -> score of prompts 0, 1, ...; returns the index.

    Sets of the same cell add up: an entry of the same dataset, p_mix and reward is replaced.
    """
    index = folder / cell / f"seed{seed}" / "index.json"
    entries = json.loads(index.read_text())["scores"] if index.exists() else []
    for reward, scores in values.items():
        file = f"{dataset}_test/p{p_mix:.2f}/{reward}.csv"
        entries = [entry for entry in entries if entry["file"] != file]
        path = index.parent / file
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{dataset}-{i:03d},{noise_seed},{score!r}\n" for i, score in enumerate(scores)]
        header = f"# {json.dumps({'reward': reward, 'key': 'k'})}\nprompt_id,seed,score\n"
        path.write_text(header + "".join(rows))
        entries.append(
            {"dataset": dataset, "split": "test", "p_mix": p_mix, "reward": reward, "file": file}
            | {"mean": 0.0, "standard_error": None, "num_images": len(scores)}
        )
    index.write_text(json.dumps({"scores": entries}))
    return index


def column(role: str, name: str | None = None, **other: Any) -> dict[str, Any]:
    return {"role": role, "name": name or role, "header": role.upper(), "digits": 3} | other


def entry(cell: str, trained: Sequence[str] = (), **other: Any) -> dict[str, Any]:
    base = cell if not trained else "base"
    return {"cell": cell, "base": base, "trained": list(trained), "p_mix": None} | other


def row(cell: str, label: str, trained: Sequence[str] = (), **other: Any) -> dict[str, Any]:
    """A row of a table with one view; what is not of a row is of its entry."""
    names = ("published_row", "group", "value", "entries")
    of_row = {name: value for name, value in other.items() if name in names}
    of_entry = {name: value for name, value in other.items() if name not in names}
    return {"label": label, "entries": [entry(cell, trained, **of_entry)]} | of_row


def view(title: str = "", **other: Any) -> dict[str, Any]:
    what = {"title": title, "dataset": "hpd", "split": "test", "p_mix": 0.8, "gains_p_mix": 1.0}
    return what | {"published_prefix": ""} | other


def write_table_spec(
    path: Path, *, columns: list[dict[str, Any]], rows: list[dict[str, Any]], **other: Any
) -> Path:
    spec = {
        "table": "table01",
        "kind": "paper",
        "title": "Table 1: a title",
        "caption": "A caption.",
        "preset": "tiny",
        "scale": "tiny: very small",
        "seeds": [0],
        "columns": columns,
        "views": [view()],
        "rows": rows,
        "published": None,
    }
    path.write_text(json.dumps(spec | other))
    return path


KINDS = ("csv", "md", "tex", "html")


def make_table(folder: Path, *, overhead: Path | None = None, **spec: Any) -> pd.DataFrame:
    """What the stage `table` makes of scores/ in `folder` is out.csv, out.md, ...; returns the csv."""
    table.run(
        spec=write_table_spec(folder / "spec.json", **spec),
        scores=folder / "scores",
        overhead=overhead,
        **{kind: folder / f"out.{kind}" for kind in KINDS},
    )
    return pd.read_csv(folder / "out.csv")


def measurement(seconds: float, rollout: float, update: float, **other: float) -> dict[str, float]:
    return {
        "counted_rollout_evaluations": rollout,
        "counted_update_evaluations": update,
        "iteration_seconds": seconds,
        "rollout_seconds": seconds / 2,
        "reward_seconds": seconds / 4,
        "update_seconds": seconds / 4,
        "image_seconds": seconds / 96,
    } | other


def write_overhead(path: Path, rows: Mapping[str, tuple[dict, dict]]) -> Path:
    """`rows`: cell -> its measurements with sharing on and off."""
    both = {cell: {"sharing_on": on, "sharing_off": off} for cell, (on, off) in rows.items()}
    path.write_text(json.dumps({"clock": "cpu", "device": "a CPU", "repetitions": 2, "rows": both}))
    return path


def write_pictures(
    folder: Path,
    cell: str,
    prompts: Sequence[tuple[str, str]],
    *,
    p_mix: float = 0.8,
    side: int = 32,
    noise_seed: int = NOISE_SEED,
) -> Path:
    """images/{cell}/seed0 with a one-coloured picture of each (id, prompt); returns the index."""
    index = folder / cell / "seed0" / "index.json"
    directory = f"hpd_test/p{p_mix:.2f}"
    (index.parent / directory).mkdir(parents=True)
    images = []
    for i, (prompt_id, prompt) in enumerate(prompts):
        pixels = np.full((side, side, 3), (40 * i % 256, len(cell) * 20 % 256, 90), dtype=np.uint8)
        Image.fromarray(pixels).save(index.parent / directory / f"{prompt_id}.png")
        images.append(
            {
                "prompt_id": prompt_id,
                "prompt": prompt,
                "seed": noise_seed,
                "file": f"{prompt_id}.png",
            }
        )
    manifest = index.parent / directory / "manifest.json"
    manifest.write_text(json.dumps({"key": "k", "images": images}))
    found = {"dataset": "hpd", "split": "test", "p_mix": p_mix, "directory": directory, "key": "k"}
    index.write_text(json.dumps({"sets": [found | {"num_images": len(images)}]}))
    return index


def write_metrics(
    path: Path, rewards: Mapping[str, Sequence[float]], *, size: int = 4, **other: Sequence[float]
) -> Path:
    """metrics.jsonl with these rewards and `other` columns; the window moves every second iteration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    length = len(next(iter(rewards.values())))
    rows = [
        {"iteration": i, "window_start": i // 2, "window_size": size, "grad_norm": 1.0}
        | {f"reward/{name}": values[i] for name, values in rewards.items()}
        | {name: values[i] for name, values in other.items()}
        for i in range(length)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in rows))
    return path
