"""The verbs: parse, check that the code is what was planned, call one stage."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from mixgrpo.errors import Stopped, UserError
from mixgrpo.imports import import_module
from mixgrpo.provenance import planned_code

TRACKERS = ("tensorboard", "wandb")
Arguments = dict[str, dict[str, Any]]

PATH: dict[str, Any] = {"type": Path, "required": True}
OPTIONAL_PATH: dict[str, Any] = {"type": Path, "default": None}
PATHS: dict[str, Any] = {"type": Path, "required": True, "nargs": "+"}
NAME: dict[str, Any] = {"required": True}
ASSIGNMENTS: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME=VALUE"}

VERBS: dict[str, Arguments] = {
    "pretrain": {"settings": PATH, "component": NAME, "output": PATH},
    "prompts": {
        "dataset": NAME,
        "split": NAME,
        "num": {"type": int, "required": True},
        "file": OPTIONAL_PATH,
        "output": PATH,
    },
    "embed": {
        "model": NAME,
        "base": {**PATH, "help": "model directory, or owner/name on the hub"},
        "revision": {"default": None, "help": "commit, of a model on the hub"},
        "precision": {"default": "fp32", "help": "fp32 or bf16 (default: fp32)"},
        "prompts": PATH,
        "output": PATH,
    },
    "train": {
        "settings": PATH,
        "prompts": PATH,
        "embeddings": PATH,
        "checkpoints": PATH,
        "model": PATH,
        "metrics": PATH,
        "tracker": {
            "default": os.environ.get("MIXGRPO_TRACKER"),
            "help": f"{' or '.join(TRACKERS)}: also log there (default: environment variable MIXGRPO_TRACKER)",
        },
    },
    "export": {
        "settings": PATH,
        "model": PATH,
        "output": {**PATH, "help": "folder to write, for plain diffusers"},
    },
    "generate": {
        "settings": PATH,
        "evaluation": PATH,
        "model": OPTIONAL_PATH,
        "prompts": PATH,
        "embeddings": PATH,
        "index": PATH,
    },
    "score": {
        "images": {**PATH, "help": "index of image sets, or any folder of pictures"},
        "rewards": OPTIONAL_PATH,
        "index": OPTIONAL_PATH,
        "prompts": {
            **OPTIONAL_PATH,
            "help": "of a folder: a line per picture, or .csv or .tsv with columns file and prompt",
        },
        "reward": {"default": None, "help": "of a folder: names, such as hps_v2_1,pick_score"},
        "output": {
            **OPTIONAL_PATH,
            "help": "of a folder: csv to write (default: FOLDER.scores.csv)",
        },
        "path": {**ASSIGNMENTS, "help": "weights of a reward, NAME=PATH"},
        "option": {**ASSIGNMENTS, "help": "option of a reward, NAME.KEY=VALUE"},
    },
    "serve-reward": {
        "reward": {"required": True, "help": "names, such as hps_v2_1,pick_score"},
        "path": {**ASSIGNMENTS, "help": "weights of a reward, NAME=PATH"},
        "option": {**ASSIGNMENTS, "help": "option of a reward, NAME.KEY=VALUE"},
        "device": {"default": None, "help": "such as cuda:1 (default: cuda where there is one)"},
        "host": {"default": "127.0.0.1"},
        "port": {"type": int, "default": 8801, "help": "0: a free one (default: 8801)"},
    },
    "overhead": {
        "settings": PATHS,
        "prompts": PATH,
        "embeddings": PATH,
        "plan": OPTIONAL_PATH,
        "output": PATH,
    },
    "costs": {"specs": PATHS, "overheads": PATHS, "md": PATH, "csv": PATH},
    "spread": {"settings": PATH, "prompts": PATH, "embeddings": PATH, "output": PATH},
    "table": {
        "spec": PATH,
        "scores": PATH,
        "overhead": OPTIONAL_PATH,
        "csv": PATH,
        "md": PATH,
        "tex": PATH,
        "html": PATH,
    },
    "figure": {"spec": PATH, "outputs": PATHS},
    "page": {"tables": PATHS, "figures": {**PATHS, "nargs": "*"}, "output": PATH},
    "check-cluster": {
        "profile": {**PATH, "help": "of Snakemake, for Slurm: its file or folder"},
        "preset": NAME,
        "seeds": {"default": "", "help": "number of training seeds (default: the config's)"},
        "tables": {"default": "", "help": "such as `1 4 figure04` (default: all)"},
    },
}


def parser() -> argparse.ArgumentParser:
    """One sub-command per stage; its options are its paths."""
    main = argparse.ArgumentParser(prog="python -m mixgrpo", description=__doc__)
    verbs = main.add_subparsers(dest="verb", required=True)
    for verb, arguments in VERBS.items():
        sub = verbs.add_parser(verb, help=f"see mixgrpo/stages/{stage_of(verb)}.py")
        for name, options in arguments.items():
            sub.add_argument(f"--{name}", **options)
        sub.add_argument(
            "--code", help="DIGEST:MODULES this job was planned with; refuse other code"
        )
    return main


def stage_of(verb: str) -> str:
    """Name of the file of `mixgrpo/stages/` that does it."""
    return verb.replace("-", "_")


def main(argv: list[str] | None = None) -> int:
    """Run one verb; 1 and a message on stderr for what a person can mend, 130 when interrupted, 75 when stopped."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    arguments = vars(parser().parse_args(argv))
    verb, planned = arguments.pop("verb"), arguments.pop("code")
    try:
        if planned is not None:
            refuse_other_code(planned)
        refuse_missing_tracker(arguments.get("tracker"))
        import_module(f"mixgrpo.stages.{stage_of(verb)}").run(**arguments)
    except UserError as error:
        print(f"mixgrpo {verb}: error: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(f"mixgrpo {verb}: {stopped}", file=sys.stderr)
        return os.EX_TEMPFAIL  # 75: "try again later"
    except KeyboardInterrupt:
        print(
            f"mixgrpo {verb}: interrupted; run it again and it goes on from here.", file=sys.stderr
        )
        return 130
    return 0


def refuse_missing_tracker(tracker: str | None) -> None:
    """UserError when the tracker asked for is unknown or not installed: accelerate would go on without it."""
    if tracker is None:
        return
    if tracker not in TRACKERS:
        raise UserError(f"tracker {tracker!r} is unknown. There are: {', '.join(TRACKERS)}.")
    if importlib.util.find_spec(tracker) is None:
        raise UserError(
            f"tracker {tracker} is not installed. Install it (pip install {tracker}), or unset MIXGRPO_TRACKER."
        )


def refuse_other_code(planned: str) -> None:
    """UserError when the code changed between planning and start. planned: `provenance.planned_code`."""
    _, _, modules = planned.partition(":")
    try:
        found = planned_code(*modules.split(","))
    except ValueError as error:
        raise UserError(f"--code {planned}: {error}") from None
    if found != planned:
        raise UserError(
            "the code of this job changed after it was planned. Run the workflow again: it plans with the code as it "
            f"is now. (Planned {planned}, found {found}.)"
        )


if __name__ == "__main__":
    sys.exit(main())
