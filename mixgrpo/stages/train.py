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
from mixgrpo.provenance import digest, stage_modules
from mixgrpo.training.checkpoint import TrainingState, load, save
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
        distributed.wait()
        distributed.seed(config.seed)
        distributed.start_tracking("mixgrpo", {"cell": str(settings.parent)})
        try:
            trainer = load_trainer(config, distributed, prompts=prompts, embeddings=embeddings)
            train(trainer, directory, key=key)
        except UserError as error:
            raise UserError(f"{settings.parent}: {error}") from None
        if distributed.is_main:
            trainer.policy.network = distributed.unwrap(trainer.policy.network)
            trainer.policy.save_weights(model)
            write_with(
                metrics, lambda temporary: shutil.copy(directory / "metrics.jsonl", temporary)
            )
            shutil.rmtree(directory)
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
    inputs = [Path(config.model.path), prompts, embeddings]
    inputs += [Path(reward.path) for reward in config.rewards.values() if reward.path]
    facts = [canonical(config), *map(fingerprint, inputs)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def train(trainer: Trainer, directory: Path, *, key: str) -> None:
    """Run the iterations that are left, keeping checkpoints and metrics in `directory`."""
    config, distributed = trainer.settings.training, trainer.distributed
    checkpoint = directory / "checkpoint.pt"
    online = trainer.settings.dpo is not None and trainer.settings.dpo.pairs == "online"
    state = TrainingState(
        distributed.unwrap(trainer.policy.network),
        trainer.optimizer,
        reference=trainer.base.network if online and trainer.base is not None else None,
    )
    load(checkpoint, state, key=key)
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
                save(checkpoint, state, key=key)
    progress.close()
