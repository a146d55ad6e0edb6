"""Why a job would run, in plain words: Snakemake's reasons, read.

Snakemake tells of changed params what they were and what they are now. Ours are canonical JSON (what a run
is planned with) and digests of code, so the two can be compared key by key.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

HEADS = {
    "Missing output files": "missing",
    "Incomplete output files": "interrupted",
    "Updated input files": "files",
    "Input files updated by another job": "derived",
    "Set of input files has changed since last execution": "inputs",
    "Code has changed since last execution": "rule",
    "Params have changed since last execution": "params",
    "Software environment definition has changed since last execution": "environment",
    "Forced execution": "forced",
}
"""How the sentences of Snakemake's reasons start (snakemake/jobs.py, `Reason`)."""
SENTENCE = re.compile(rf"(?:^|; )({'|'.join(map(re.escape, HEADS))})(?:: )?")
WORK = {
    "settings": "training",
    "pretrain_model": "pretraining",
    "pretrain_sd3": "pretraining",
    "pretrain_reward": "pretraining",
    "prompts": "prompts",
    "embed": "embedding",
    "generate": "generating pictures",
    "score": "scoring",
    "overhead": "measuring overhead",
    "spread": "measuring spread",
    "table": "tables",
    "figure": "drawing",
    "page": "the page",
}
"""What people call the work that a rule's code does."""

Kind = Literal["missing", "code", "plan", "files"]
"""Never made or half made; made by other code; made by another plan; from files that changed since."""


@dataclass(frozen=True)
class Job:
    """One job of Snakemake, as workflow/plugins/snakemake_logger_plugin_jobs tells it."""

    rule: str
    wildcards: Mapping[str, str]
    input: Sequence[str]
    output: Sequence[str]
    reason: str
    message: str | None
    benchmark: str | None = None
    """A record of its time, which Snakemake counts as one more output."""
    threads: int = 1
    resources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def writes_plan(self) -> bool:
        """Whether it only writes down what another job is planned with."""
        return self.message is None


@dataclass(frozen=True)
class Cause:
    """Why a job is stale by itself, not only because one before it is."""

    kind: Kind
    text: str
    files: tuple[str, ...] = ()
    """Those that changed, where that is the cause."""


def causes(job: Job) -> list[Cause]:
    """All causes of one job; none when it only follows from jobs before it."""
    found: list[Cause] = []
    for head, rest in sentences(job.reason):
        if head == "missing":
            found.append(Cause("missing", "not made yet"))
        elif head == "interrupted":
            found = [Cause("missing", "was interrupted")]
        elif head == "files":
            files = tuple(rest.split(", "))
            more = f" and {len(files) - 1} more of its files" if files[1:] else ""
            found.append(Cause("files", f"{named(job, files[0])}{more} changed", files))
        elif head == "inputs":
            found.append(Cause("plan", "is made from other files than before"))
        elif head == "rule":
            found.append(Cause("code", f"the rule {job.rule} of the workflow changed"))
        elif head == "params":
            found += param_causes(job, rest)
        elif head == "environment":
            found.append(Cause("code", "the software environment changed"))
        elif head == "forced":
            found.append(Cause("plan", "you asked for it"))
    return list(dict.fromkeys([c for c in found if c.kind == "missing"] or found))


def sentences(reason: str) -> list[tuple[str, str]]:
    """(what it is, the rest) of each sentence of a reason.

    >>> sentences("Missing output files: a, b; Code has changed since last execution")
    [('missing', 'a, b'), ('rule', '')]
    """
    _, *parts = SENTENCE.split(reason)
    return [(HEADS[head], rest.strip()) for head, rest in zip(parts[::2], parts[1::2], strict=True)]


def named(job: Job, file: str) -> str:
    """A file as people call it: of a job's own run, by its name.

    >>> job = Job("train", {"cell": "flash", "seed": "0"}, (), (), "", "")
    >>> named(job, "results/tiny/runs/flash/seed0/settings.json")
    'its settings.json'
    """
    run = "{cell}/seed{seed}/".format_map({"cell": "", "seed": "", **job.wildcards})
    return f"its {file.rpartition('/')[2]}" if run in file else file


def param_causes(job: Job, text: str) -> list[Cause]:
    """What changed among the params of a job."""
    change = read_change(text)
    if change is None:
        return [Cause("plan", "its parameters changed")]
    found: list[Cause] = []
    before, now = change
    for old, new in pairs(before, now):
        if is_code(old) and is_code(new):
            found.append(code_cause(job, str(old), str(new)))
        elif is_json(old) and is_json(new):
            found += plan_causes(job.rule, json.loads(str(old)), json.loads(str(new)))
        else:
            found.append(Cause("plan", f"{said(old)} -> {said(new)}"))
    return found


def read_change(text: str) -> tuple[list[Any], list[Any]] | None:
    """Params that a job had before only, and has now only; None when the text is not as we know it."""
    _, _, text = text.partition("before: ")
    ends = [match.span() for match in re.finditer(" now: ", text)]
    for start, stop in ends:
        try:
            return items(text[:start]), items(text[stop:])
        except (ValueError, SyntaxError):
            continue
    return None


def items(text: str) -> list[Any]:
    """A comma-separated list of Python literals.

    >>> items("'a',3")
    ['a', 3]
    """
    text = text.strip()
    return [] if text == "<nothing exclusive>" else ast.literal_eval(f"[{text}]")


def pairs(before: Sequence[Any], now: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    """Old and new values that belong together: by what they look like, for Snakemake keeps no names."""
    for alike in (is_code, is_json, lambda value: not is_code(value) and not is_json(value)):
        old, new = [v for v in before if alike(v)], [v for v in now if alike(v)]
        length = max(len(old), len(new))
        yield from zip(
            old + [None] * (length - len(old)), new + [None] * (length - len(new)), strict=True
        )


def is_code(value: Any) -> bool:
    """Whether a param is `DIGEST:MODULES` of provenance.py."""
    return isinstance(value, str) and re.match(r"[0-9a-f]{12}:mixgrpo\.", value) is not None


def is_json(value: Any) -> bool:
    """Whether a param is a plan, as JSON."""
    return isinstance(value, str) and value.startswith("{")


def code_cause(job: Job, old: str, new: str) -> Cause:
    """The code of a job, which may name other modules than before."""
    modules = [set(value.partition(":")[2].split(",")) for value in (old, new)]
    changed = [name.removeprefix("mixgrpo.") for name in sorted(modules[0] ^ modules[1])]
    if changed:
        return Cause("plan", f"runs other modules than before ({', '.join(changed)})")
    return Cause("code", f"the code of {WORK.get(job.rule, job.rule)} changed")


def plan_causes(rule: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Cause]:
    """What changed in a plan."""
    if rule == "settings":
        return settings_causes(old, new)
    if rule == "rewards":
        return [Cause("plan", text) for text in reward_texts(old, new)]
    if rule == "evaluation":
        before, now = (
            {f"{s['dataset']} {s['split']} at p_mix {s['p_mix']}": s for s in plan.get("sets", [])}
            for plan in (old, new)
        )
        texts = differing_names("set of pictures", before, now)
        was, becomes = ({k: v for k, v in plan.items() if k != "sets"} for plan in (old, new))
        return [Cause("plan", text) for text in texts + differences(was, becomes)]
    if rule in ("table_spec", "figure_spec"):
        keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        return [Cause("plan", f"its sheet changed ({', '.join(keys)})")]
    return [Cause("plan", text) for text in differences(old, new)]


def settings_causes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Cause]:
    """What changed in a run's settings; a setting that there was not before came with the code."""
    found = []
    if old.get("code") != new.get("code"):
        found.append(Cause("code", f"the code of {WORK['settings']} changed"))
    found += [
        Cause("plan", text)
        for text in reward_texts(old.get("rewards", {}), new.get("rewards", {}), "rewards.")
    ]
    before, now = flat(old), flat(new)
    for key in sorted({*before, *now} - {"code"}):
        if key.startswith("rewards."):
            continue
        elif key in before and key in now:
            if before[key] != now[key]:
                found.append(Cause("plan", f"{key} {said(before[key])} -> {said(now[key])}"))
        elif is_related(key, now if key in before else before):
            was, becomes = said(before.get(key, "unset")), said(now.get(key, "unset"))
            found.append(Cause("plan", f"{key} {was} -> {becomes}"))
        elif key in now:
            found.append(Cause("code", f"the setting {key} is new ({said(now[key])})"))
        else:
            found.append(Cause("code", f"the setting {key} is gone"))
    return found


def is_related(key: str, others: Iterable[str]) -> bool:
    """Whether a block that `key` is in, or a key inside it, is among the others.

    >>> is_related("dpo.beta", ["dpo"]), is_related("dpo", ["dpo.beta"]), is_related("dpo", ["lora"])
    (True, True, False)
    """
    return any(key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in others)


def differing_names(noun: str, old: Iterable[str], new: Iterable[str]) -> list[str]:
    """What is only in one of two sets of names.

    >>> differing_names("reward", ["a"], ["a", "b", "c"])
    ['new reward: b, c']
    """
    found = []
    for word, names in (("new", set(new) - set(old)), ("gone", set(old) - set(new))):
        if names:
            found.append(f"{word} {noun}: {', '.join(sorted(names))}")
    return found


def reward_texts(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed in the rewards: which there are, and of those that stay weight, path and options.

    >>> reward_texts({"a": {"path": "x"}}, {"a": {"path": "y", "options": {}}})
    ['a.path x -> y']
    """
    found = differing_names("reward", old, new)
    for name in sorted(old.keys() & new.keys()):
        before, now = (
            {key: value for key, value in sheet.items() if value != {}}
            for sheet in (old[name], new[name])
        )
        found += differences(before, now, f"{prefix}{name}.")
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Every key that differs.

    >>> differences({"a": {"b": 1}}, {"a": {"b": 2}})
    ['a.b 1 -> 2']
    """
    before, now = flat(old, prefix), flat(new, prefix)
    pairs = ((key, before.get(key), now.get(key)) for key in sorted({*before, *now}))
    return [f"{key} {said(was)} -> {said(value)}" for key, was, value in pairs if was != value]


def flat(block: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Blocks as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in block.items():
        inner = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def said(value: Any) -> str:
    """A value as it stands in YAML."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
