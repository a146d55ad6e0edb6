"""Train one cell (Algorithms 1 and 2, and the baselines that share their loop).

Progress lives in `{checkpoints}/{key}/`, where the key covers settings, code, base model, rewards and
prompts: an interrupted run goes on from there, another run never does, and it is removed at the end.
"""

import hashlib
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mixgrpo.config import Settings, canonical, read_settings
from mixgrpo.errors import Stopped, UserError
from mixgrpo.files import fingerprint, write_text, write_with
from mixgrpo.locks import Lock
from mixgrpo.models import base_fingerprint
from mixgrpo.provenance import digest, stage_modules
from mixgrpo.training.checkpoint import TrainingState, load, load_sharded, save, save_sharded
from mixgrpo.training.distributed import Distributed
from mixgrpo.training.iteration import iterate
from mixgrpo.training.metrics import MetricsFile
from mixgrpo.training.stopping import StopSignal, wait_for_lock
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
    """Train as `settings` says; write the tuned network's weights and one row of metrics per iteration.

    Stopped on SIGTERM, with a checkpoint of all iterations done. Another job that trains the same run is waited for.
    """
    config = read_settings(settings)
    refuse_other_code(config, settings)
    key = run_key(config, prompts=prompts, embeddings=embeddings)
    outputs = Outputs(model=model, metrics=metrics, record=checkpoints / f"{key}.json")
    lock = Lock(checkpoints / f"{key}.lock")
    distributed = Distributed(
        precision=config.training.precision, tracker=tracker, project_dir=metrics.parent
    )
    with StopSignal() as stop:
        try:
            wait_for_lock(lock, distributed, stop)
            if distributed.any(distributed.is_main and outputs.are_made()):
                sys.stderr.write(f"{model} is there: another job has trained this run.\n")
            else:
                distributed.seed(config.seed)
                distributed.start_tracking("mixgrpo", {"cell": str(settings.parent)})
                trainer = load_trainer(config, distributed, prompts=prompts, embeddings=embeddings)
                train(trainer, checkpoints / key, key=key, stop=stop)
                if distributed.is_main:
                    refuse_replanned(config, settings)
                publish(trainer, checkpoints / key, outputs)
        except Stopped:
            distributed.finish()
            raise
        except Exception as error:
            told = distributed.explain(error)
            if told is None:
                raise
            raise UserError(f"{settings.parent}: {told}") from None
        finally:
            lock.release()
        distributed.finish()


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a run writes, and the record that it did."""

    model: Path
    metrics: Path
    record: Path
    """Named by the run's key: what another run, or a person, wrote at the same paths is not this one's."""

    def are_made(self) -> bool:
        """Whether they are there, as a run of the same key wrote them."""
        files = (self.model, self.metrics)
        if not all(path.exists() for path in (self.record, *files)):
            return False
        return json.loads(self.record.read_text()) == [fingerprint(path) for path in files]

    def note_made(self) -> None:
        """Keep on record what was written."""
        write_text(self.record, json.dumps([fingerprint(self.model), fingerprint(self.metrics)]))


def refuse_other_code(config: Settings, path: Path) -> None:
    """UserError when the code is not what the run was planned with."""
    found = digest(*stage_modules("train", models=[config.model.name], rewards=config.rewards))
    if config.code not in ("", found):
        raise UserError(
            f"{path} was planned with other code (digest {config.code}, now {found}). Run the workflow again: it "
            "plans with the code as it is now. `make accept` keeps what other code made."
        )


def refuse_replanned(config: Settings, path: Path) -> None:
    """UserError when the workflow has planned this run anew meanwhile: its files are for the new one to write."""
    if read_settings(path) != config:
        raise UserError(
            f"{path} changed while this run trained by what it said before, so the result was not written. The "
            "workflow that changed it trains by the new settings."
        )


def run_key(config: Settings, *, prompts: Path, embeddings: Path) -> str:
    """What a checkpoint belongs to: everything the run's result depends on."""
    inputs = [prompts, embeddings]
    inputs += [Path(reward.path) for reward in config.rewards.values() if reward.path]
    facts = [canonical(config), base_fingerprint(config.model), *map(fingerprint, inputs)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def train(trainer: Trainer, directory: Path, *, key: str, stop: StopSignal) -> None:
    """Run the iterations that are left, keeping checkpoints and metrics in `directory`; Stopped between two of them."""
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
    kept = start = state.iteration
    for iteration in range(state.iteration, config.num_iterations):
        if distributed.any(stop.came):
            if kept < state.iteration:
                keep(trainer, state, directory, key=key)
            raise Stopped(how_far(iteration, config.num_iterations, first=start))
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
            kept = state.iteration
    progress.close()


def how_far(iteration: int, total: int, *, first: int) -> str:
    """What a training that is stopped leaves; one that came no further wants more time."""
    if iteration == first:
        return (
            f"stopped by SIGTERM at iteration {iteration} of {total}, where this job began. A job needs time for more "
            "than one: raise its `runtime` (block `jobs` of the preset)."
        )
    return (
        f"stopped by SIGTERM after iteration {iteration} of {total}; its checkpoint is kept. Run the same again, and "
        "it goes on from there."
    )


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


def publish(trainer: Trainer, directory: Path, outputs: Outputs) -> None:
    """Write the tuned weights, whole, and the metrics; remove the progress that `directory` holds."""
    distributed, policy = trainer.distributed, trainer.policy
    policy.network = distributed.unwrap(policy.network)
    gathered = distributed.whole_weights(policy.network)
    if distributed.is_main:
        rows = directory / "metrics.jsonl"
        policy.save_weights(outputs.model, gathered)
        write_with(outputs.metrics, lambda temporary: shutil.copy(rows, temporary))
        outputs.note_made()
        shutil.rmtree(directory)
