"""The settings of one run: frozen dataclasses, checked once, written beside every result as canonical JSON.

Values are resolved by `mixgrpo.planning` (config/README.md says in which order) and read here. Torch-free, because
the workflow imports it to plan. Longer than 300 lines: a sentence for every setting, in one place to look them up.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mixgrpo.errors import UserError

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
BASE_CELL = "base"
"""The untrained cell, which gains are measured against; at seed 0, sampled by the base model alone."""


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Which denoising steps are sampled by SDE and optimised, as a function of the iteration (section 3.2)."""

    size: int = 4
    """w: denoising steps inside the window (Table 6)."""
    stride: int = 1
    """s: steps the window moves at each shift (Table 7)."""
    interval: int = 25
    """tau: iterations between shifts; tau_0 of the decaying schedules (Table 5, Eq. 11)."""
    strategy: Literal["progressive", "random", "frozen"] = "progressive"
    """How the window moves (Table 4)."""
    interval_schedule: Literal["constant", "linear", "exp"] = "constant"
    """How tau changes with the window's start l (Table 4): constant, linear decay to 1, or Eq. 11."""
    decay_rate: float = 0.1
    """k of Eq. 11."""
    decay_threshold: int = 13
    """Lambda_threshold of Eq. 11: the start l from which the interval decays."""
    at_end: Literal["restart", "hold"] = "restart"
    """What happens when l would pass its last position: back to 0, or stay."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for name in ("size", "stride", "interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"window.{name}={getattr(self, name)} must be 1 or more.")
        if self.stride > self.size:
            raise ValueError(
                f"window.stride={self.stride} skips steps: it must be <= window.size={self.size}. "
                "Lower the stride or widen the window."
            )
        if self.decay_rate < 0:
            raise ValueError(f"window.decay_rate={self.decay_rate} must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The base model: `mixgrpo/models/{name}.py` loads the diffusers directory at `path`."""

    name: str
    """File name in mixgrpo/models/, without .py."""
    path: str
    """Directory in diffusers layout; or, with `revision`, the hub's name of one (owner/name)."""
    revision: str | None = None
    """Commit of the hub's repository, 40 hexadecimal digits; null for a local directory."""
    text_precision: Literal["fp32", "bf16"] = "fp32"
    """Of the text encoders, and of the embeddings they leave on disk."""
    guidance: float = 3.5
    """Guidance scale: embedded (FLUX), or classifier-free with both branches in one batch (SD3.5)."""
    resolution: int = 720
    """Height and width of training images, pixels."""
    schedule: Literal["shifted", "sd3"] = "shifted"
    """Noise levels of its sampler, in training and evaluation: uniform and shifted, or SD3.5's own scheduler's."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.revision is None:
            return
        if not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(
                f"revision={self.revision!r}: wanted a commit, 40 hexadecimal digits. A branch or tag can move; the "
                "page of the repository lists its commits."
            )
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.path):
            raise ValueError(
                f"revision is set, but path={self.path!r} is no name of a hub repository (owner/name). Remove "
                "revision, or correct path."
            )


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How a rollout is sampled (sections 3.1, 3.3)."""

    num_steps: int = 25
    """T: denoising steps of the schedule."""
    shift: float = 3.0
    """Time shift of the schedule."""
    noise: Literal["flow_grpo", "dance_grpo"] = "flow_grpo"
    """Noise scale g(sigma): eta sqrt(sigma / (1 - sigma)), or eta."""
    eta: float = 0.7
    """Strength of the noise."""
    sde_steps: Literal["window", "all_but_last", "all"] = "window"
    """SDE inside the window (MixGRPO), at every step but the last (DanceGRPO), or at every step (Flow-GRPO)."""
    tail_ratio: float | None = None
    """r: Flash compresses the steps after the window to this share, by DPM-Solver++; None is plain ODE."""
    solver_order: Literal[1, 2, 3] = 2
    """Order of the tail's DPM-Solver++ (Table 8)."""
    solver_type: Literal["midpoint", "heun"] = "midpoint"
    """Variant at order 2 (Table 8)."""
    sharing: bool = True
    """Evaluate once what a whole group has in common. False is the naive path of the benchmarks."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.num_steps < 2:
            raise ValueError(f"sampling.num_steps={self.num_steps} must be 2 or more.")
        if self.shift <= 0:
            raise ValueError(f"sampling.shift={self.shift} must be positive.")
        if self.eta <= 0:
            raise ValueError(
                f"sampling.eta={self.eta} must be positive: eta = 0 leaves nothing to explore."
            )
        if self.tail_ratio is not None and not 0 < self.tail_ratio <= 1:
            raise ValueError(
                f"sampling.tail_ratio={self.tail_ratio} must be in (0, 1], or null for a plain ODE tail."
            )
        if self.tail_ratio is not None and self.sde_steps != "window":
            raise ValueError(
                f"sampling.tail_ratio needs a window: with sde_steps: {self.sde_steps} there is no tail. "
                "Set it to null."
            )


@dataclass(frozen=True, kw_only=True)
class TrainedStepsConfig:
    """Which of an image's SDE steps enter the loss."""

    choice: Literal["all", "random", "first"] = "all"
    """All of them (MixGRPO), a random subset per image (DanceGRPO), or the first ones (DanceGRPO 4*)."""
    count: int | None = None
    """How many, for random and first."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if (self.choice == "all") != (self.count is None):
            raise ValueError(
                f"trained_steps.choice={self.choice} with count={self.count}: "
                "give a count for random and first, none for all."
            )
        if self.count is not None and self.count < 1:
            raise ValueError(f"trained_steps.count={self.count} must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """One reward model: `mixgrpo/rewards/{name}.py` loads what is at `path`; its weight in the advantage."""

    weight: float = 1.0
    path: str | None = None
    """Its weights; null for one without weights, or for the checkpoint that the reward names itself."""
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword-only arguments of `load` in the reward's file."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError(
                f"weight={self.weight} must be positive. Leave the reward out instead."
            )
        check_options(self.options)


def check_options(options: dict[str, Any]) -> None:
    """ValueError unless each option of a reward is a text, a number, true or false."""
    for name, value in options.items():
        if type(value) not in (str, int, float, bool):
            raise ValueError(f"options.{name}={value!r}: wanted a text, a number, true or false.")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters in place of full fine-tuning (Table 3)."""

    rank: int
    """r: inner dimension."""
    alpha: int
    """The adapters' output is scaled by alpha / rank."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for name in ("rank", "alpha"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.lora.{name}={getattr(self, name)} must be 1 or more.")


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """Flow-DPO in place of GRPO (Table 3): best and worst of each group are a pair."""

    pairs: Literal["offline", "online"]
    """Sampled from the base model, which stays the reference; or from the policy, which becomes it now and then."""
    beta: float = 100.0
    """Weight of the margin over the reference."""
    num_levels: int = 40
    """Noise levels at which each pair is compared in an iteration, dealt to its updates."""
    reference_interval: int = 40
    """Online: iterations of the paper's 300 after which the reference becomes the policy."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        for name in ("beta", "num_levels", "reference_interval"):
            if getattr(self, name) <= 0:
                raise ValueError(f"dpo.{name}={getattr(self, name)} must be positive.")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Iterations, groups and the optimiser (section 4.2)."""

    num_iterations: int = 300
    """Rollout + optimise cycles."""
    window_clock: int = 1
    """Iterations of the paper's 300 that one iteration here stands for; the window sees iteration * clock."""
    num_prompts: int = 1
    """Prompts per iteration, dealt to all processes; their number changes nothing else."""
    group_size: int = 12
    """G: images per prompt."""
    num_updates: int = 4
    """Optimizer updates per iteration; each takes group_size / num_updates images of every group."""
    micro_batch: int = 3
    """Images in one forward and backward pass."""
    learning_rate: float = 1.0e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1.0e-4
    max_grad_norm: float = 1.0
    clip_range: float = 1.0e-4
    """Clip range of the ratio. Log-probs are means over dimensions, so it scales like 1/sqrt(dim)."""
    advantage_clip: float = 5.0
    kl_weight: float = 0.0
    """beta: weight of the closed-form KL to the base model."""
    precision: Literal["no", "bf16"] = "bf16"
    """Mixed precision of the forward pass, as accelerate names it; master weights are fp32."""
    checkpoint_interval: int = 20
    """Iterations between checkpoints."""
    lora: LoraConfig | None = None
    """Adapters that are trained; None trains all weights."""
    gradient_checkpointing: bool = False
    """Keep only each block's input for the backward pass: less memory for a third more time in updates."""
    compile: bool = False
    """Compile the network's blocks (torch.compile); SDE steps are then sampled by the update's own graphs."""
    sharding: Literal["none", "fsdp"] = "none"
    """What several processes do with weights, gradients and optimizer: each has all, or each a part."""
    gradient_reduction: Literal["update", "backward"] = "update"
    """With fsdp: sum gradients once per update, or after each backward pass, when none holds whole gradients."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        positive = (
            "num_iterations window_clock num_prompts num_updates micro_batch learning_rate max_grad_norm "
            "clip_range advantage_clip checkpoint_interval"
        )
        for name in positive.split():
            if getattr(self, name) <= 0:
                raise ValueError(f"training.{name}={getattr(self, name)} must be positive.")
        if self.group_size < 2:
            raise ValueError(
                f"training.group_size={self.group_size}: an advantage compares at least 2 images."
            )
        if self.group_size % self.num_updates:
            raise ValueError(
                f"training.group_size={self.group_size} cannot be dealt into "
                f"num_updates={self.num_updates} equal parts. Choose num_updates that divides group_size."
            )
        if self.sharding == "none" and self.gradient_reduction != "update":
            raise ValueError(
                f"training.gradient_reduction={self.gradient_reduction} is for sharding: fsdp; without it gradients "
                "are whole anyway, and summed once per update. Set it to update."
            )
        if self.compile and self.sharding == "fsdp":
            raise ValueError(
                "training.compile with sharding: fsdp was never tried, so it is refused. Set compile to false."
            )
        if self.kl_weight < 0:
            raise ValueError(f"training.kl_weight={self.kl_weight} must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One training run, fully resolved: nothing implicit. `runs/{cell}/seed{seed}/settings.json` holds it."""

    preset: str
    seed: int
    dataset: str
    """Prompts it trains on: a key of the preset's datasets."""
    model: ModelConfig
    rewards: dict[str, RewardConfig]
    """Rewards trained on, by file name in mixgrpo/rewards/."""
    window: WindowConfig = field(default_factory=WindowConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    trained_steps: TrainedStepsConfig = field(default_factory=TrainedStepsConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    dpo: DpoConfig | None = None
    """Flow-DPO; None is GRPO."""
    code: str = ""
    """Digest of the code this run was planned with (`mixgrpo.provenance`); a job with other code refuses."""

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.rewards:
            raise ValueError("rewards is empty: name at least one reward to train on.")
        last_start = self.sampling.num_steps - 1 - self.window.size
        if self.sampling.sde_steps == "window" and last_start < 0:
            raise ValueError(
                f"window.size={self.window.size} does not fit sampling.num_steps={self.sampling.num_steps}: "
                f"the last step is never optimised, so the size is at most {self.sampling.num_steps - 1}. "
                "Shrink the window or add steps."
            )
        available = self.num_sde_steps
        if self.trained_steps.count is not None and self.trained_steps.count > available:
            raise ValueError(
                f"trained_steps.count={self.trained_steps.count} but only {available} steps are SDE steps."
            )
        if self.sampling.tail_ratio is not None and self.model.schedule != "shifted":
            raise ValueError(
                f"sampling.tail_ratio={self.sampling.tail_ratio} compresses the schedule `shifted`, but the model has "
                f"`{self.model.schedule}`. Set it to null."
            )
        if self.dpo is not None and self.dpo.num_levels % self.training.num_updates:
            raise ValueError(
                f"dpo.num_levels={self.dpo.num_levels} cannot be dealt to training.num_updates="
                f"{self.training.num_updates} updates. Choose a multiple."
            )

    @property
    def num_sde_steps(self) -> int:
        """Steps of a rollout that are sampled by SDE."""
        counts = {
            "window": self.window.size,
            "all_but_last": self.sampling.num_steps - 1,
            "all": self.sampling.num_steps,
        }
        return counts[self.sampling.sde_steps]


def parse(data: Any, *, where: str) -> Settings:
    """Check `data` and build `Settings`. UserError names every bad key, its value and `where` it stands."""
    try:
        return TypeAdapter(Settings).validate_json(json.dumps(data))
    except ValidationError as error:
        raise UserError(
            "\n".join([f"{where}: settings do not hold:", *map(_explain, error.errors())])
        ) from None


def _explain(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"])) or "settings"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "unexpected_keyword_argument":
        return f"  {key}: unknown key (value {problem['input']!r}). Check its spelling against config/config.yaml."
    if problem["type"] == "missing":
        return f"  {key}: missing."
    if problem["type"] == "value_error":
        return f"  {key}: {message}"
    return f"  {key}: got {problem['input']!r}. {message}."


def canonical(settings: Settings) -> str:
    """One line of JSON that changes exactly when a value does: keys sorted, 0.80 and 1e-1 normalised."""
    return json.dumps(asdict(settings), sort_keys=True)


def read_settings(path: Path) -> Settings:
    """Settings from a `settings.json` that the workflow wrote."""
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such settings file. `snakemake {path}` writes it.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not JSON ({error}). Delete it; the workflow writes it again."
        ) from None
    return parse(data, where=str(path))
