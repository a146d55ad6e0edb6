"""Train one cell (Algorithms 1 and 2, and the baselines that share their loop).

Progress lives in `{checkpoints}/{key}/`, where the key covers settings, code, base model, rewards and
prompts: an interrupted run goes on from there, another run never does, and it is removed at the end.
"""

import contextlib
import hashlib
import shutil
from pathlib import Path

from tqdm import tqdm

from mixgrpo.config import Settings, canonical, read_settings
from mixgrpo.errors import UserError
from mixgrpo.files import fingerprint, locked, write_with
from mixgrpo.models import base_fingerprint
from mixgrpo.provenance import digest, stage_modules
from mixgrpo.training.checkpoint import TrainingState, load, load_sharded, save, save_sharded
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.iteration import iterate
from mixgrpo.training.metrics import MetricsFile
from mixgrpo.training.trainer import Trainer, load_trainer


def run(
    *,
    settings: Path,
    prompts: Path,
    embeddings: Path,
    checkpoints: Path,
    model: Path,
    metrics: Path,
    tracker: str | None = None,
) -> None:
    """Train as `settings` says; write the tuned network's weights and one row of metrics per iteration."""
    config = read_settings(settings)
    refuse_other_code(config, settings)
    key = run_key(config, prompts=prompts, embeddings=embeddings)
    directory = checkpoints / key
    distributed = Distributed(
        precision=config.training.precision, tracker=tracker, project_dir=metrics.parent
    )
    lock = locked(checkpoints / f"{key}.lock") if distributed.is_main else contextlib.nullcontext()
    with lock:
        try:
            distributed.wait()
            distributed.seed(config.seed)
            distributed.start_tracking("mixgrpo", {"cell": str(settings.parent)})
            trainer = load_trainer(config, distributed, prompts=prompts, embeddings=embeddings)
            train(trainer, directory, key=key)
            publish(trainer, directory, model=model, metrics=metrics)
        except Exception as error:
            told = distributed.explain(error)
            if told is None:
                raise
            raise UserError(f"{settings.parent}: {told}") from None
        distributed.finish()


def refuse_other_code(config: Settings, path: Path) -> None:
    """UserError when the code is not what the run was planned with."""
    found = digest(*stage_modules("train", models=[config.model.name], rewards=config.rewards))
    if config.code not in ("", found):
        raise UserError(
            f"{path} was planned with other code (digest {config.code}, now {found}). Run the workflow again: it "
            "plans with the code as it is now. `make accept` keeps what other code made."
        )


def run_key(config: Settings, *, prompts: Path, embeddings: Path) -> str:
    """What a checkpoint belongs to: everything the run's result depends on."""
    inputs = [prompts, embeddings]
    inputs += [Path(reward.path) for reward in config.rewards.values() if reward.path]
    facts = [canonical(config), base_fingerprint(config.model), *map(fingerprint, inputs)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def train(trainer: Trainer, directory: Path, *, key: str) -> None:
    """Run the iterations that are left, keeping checkpoints and metrics in `directory`."""
    config, distributed = trainer.settings.training, trainer.distributed
    online = trainer.settings.dpo is not None and trainer.settings.dpo.pairs == "online"
    state = TrainingState(
        distributed.unwrap(trainer.policy.network),
        trainer.optimizer,
        reference=trainer.base.network if online and trainer.base is not None else None,
    )
    resume(trainer, state, directory, key=key)
    rows = (
        MetricsFile(directory / "metrics.jsonl", completed=state.iteration)
        if distributed.is_main
        else None
    )
    progress = tqdm(
        total=config.num_iterations,
        initial=state.iteration,
        unit="iteration",
        disable=not distributed.is_main,
        mininterval=2,
    )
    for iteration in range(state.iteration, config.num_iterations):
        row = iterate(trainer, iteration)
        state.iteration = iteration + 1
        distributed.track(row, iteration)
        if rows is not None:
            rows.append(row)
            progress.set_postfix(
                {r.name: f"{row[f'reward/{r.name}']:.3f}" for r in trainer.rewards}
            )
            progress.update()
        last = state.iteration == config.num_iterations
        if last or state.iteration % config.checkpoint_interval == 0:
            keep(trainer, state, directory, key=key)
    progress.close()


def resume(trainer: Trainer, state: TrainingState, directory: Path, *, key: str) -> None:
    """Take up the checkpoint in `directory`, if there is one."""
    if trainer.settings.training.sharding == "fsdp":
        load_sharded(directory / "checkpoint", state, key=key)
    else:
        load(directory / "checkpoint.pt", state, key=key)


def keep(trainer: Trainer, state: TrainingState, directory: Path, *, key: str) -> None:
    """Write a checkpoint: the main process, or all of them where weights are sharded."""
    distributed = trainer.distributed
    if trainer.settings.training.sharding == "fsdp":
        path, is_main = directory / "checkpoint", distributed.is_main
        save_sharded(path, state, key=key, is_main=is_main, wait=distributed.wait)
    elif distributed.is_main:
        save(directory / "checkpoint.pt", state, key=key)


def publish(trainer: Trainer, directory: Path, *, model: Path, metrics: Path) -> None:
    """Write the tuned weights, whole, and the metrics; remove the progress that `directory` holds."""
    distributed, policy = trainer.distributed, trainer.policy
    policy.network = distributed.unwrap(policy.network)
    gathered = distributed.whole_weights(policy.network)
    if distributed.is_main:
        policy.save_weights(model, gathered)
        write_with(metrics, lambda temporary: shutil.copy(directory / "metrics.jsonl", temporary))
        shutil.rmtree(directory)
