"""The two halves of a GRPO iteration: sample groups by SDE and ODE, optimise on them (Algorithms 1 and 2).

MixGRPO, Flash, DanceGRPO and Flow-GRPO differ in settings alone.
"""

import torch
from torch import Tensor

from mixgrpo.algorithm.dpm import DPMSolver
from mixgrpo.training.grpo import accumulate_gradients, images_of_update, trained_steps
from mixgrpo.training.randomness import seeded
from mixgrpo.training.rollout import (
    Finished,
    Plan,
    Rollout,
    collect,
    plan_rollout,
    rollout_noise,
)
from mixgrpo.training.trainer import Trainer, optimizer_step, window_of


class GrpoIteration:
    """One iteration on the prompts in `rows`; making it samples, and says of groups that they are finished."""

    def __init__(
        self, trainer: Trainer, rows: list[int], iteration: int, finished: Finished | None = None
    ) -> None:
        self.trainer, self.rows, self.iteration = trainer, rows, iteration
        settings = trainer.settings
        window = window_of(settings, iteration)
        self.plan = plan_rollout(settings.sampling, window, settings.model.schedule)
        self.rollout = sample(trainer, self.plan, rows, iteration, finished)

    @property
    def facts(self) -> dict[str, float]:
        """Metrics of the sampling."""
        steps = self.plan.sde_steps
        nfe = float(len(self.plan.sigmas) - 1)
        return {"window_start": steps.start, "window_size": len(steps), "rollout_nfe": nfe}

    def optimise(self, advantages_PG: Tensor) -> dict[str, float]:
        """`num_updates` optimizer updates, each over its share of every group; means of their metrics."""
        trainer, config = self.trainer, self.trainer.settings.training
        advantages = advantages_PG.flatten().to(trainer.distributed.device, torch.float32)
        mask = self.trained()
        per_update = []
        for index in range(config.num_updates):
            images = images_of_update(
                index,
                num_prompts=len(self.rows),
                group_size=config.group_size,
                num_updates=config.num_updates,
            )
            trainer.optimizer.zero_grad(set_to_none=True)
            sums = accumulate_gradients(
                trainer.policy,
                trainer.base,
                self.rollout,
                advantages,
                images,
                mask,
                clip_range=config.clip_range,
                kl_weight=config.kl_weight,
                micro_batch=config.micro_batch,
                weight=trainer.loss_weight,
                passes=trainer.passes,
            )
            norm = optimizer_step(trainer, sums["loss"], iteration=self.iteration, update=index)
            per_update.append({**sums, "grad_norm": norm})
        stats = {
            name: torch.stack([torch.as_tensor(u[name]) for u in per_update])
            for name in per_update[0]
        }
        means = {n: (v.max() if n == "ratio_deviation" else v.mean()) for n, v in stats.items()}
        nfe = mask.sum(1).double().mean()
        return {n: value.item() for n, value in {**means, "update_nfe": nfe}.items()}

    def trained(self) -> Tensor:
        """(B, S) bool: the SDE steps of each image that enter the loss."""
        settings, prompts = self.trainer.settings, self.trainer.prompts
        generators = [
            seeded(settings.seed, "trained steps", self.iteration, prompts[row].id, image)
            for row in self.rows
            for image in range(settings.training.group_size)
        ]
        num_sde_steps = len(self.rollout.log_prob)
        return trained_steps(settings.trained_steps, num_sde_steps, generators=generators)


def sample(
    trainer: Trainer, plan: Plan, rows: list[int], iteration: int, finished: Finished | None = None
) -> Rollout:
    """Rollout of one group for each prompt in `rows`, with noise that depends on seed, iteration and prompt alone."""
    settings, device = trainer.settings, trainer.distributed.device
    config = settings.training
    noise = [
        rollout_noise(
            trainer.policy.latent_shape,
            len(plan.sde_steps),
            config.group_size,
            *(settings.seed, iteration, trainer.prompts[row].id),
        )
        for row in rows
    ]
    return collect(
        trainer.policy,
        trainer.cond.take(torch.tensor(rows)).to(device),
        plan,
        initial_noise=torch.stack([initial for initial, _ in noise]).to(device),
        sde_noise=torch.stack([sde for _, sde in noise], 1).to(device),
        micro_batch=config.micro_batch,
        solver=lambda: DPMSolver(settings.sampling.solver_order, settings.sampling.solver_type),
        finished=finished,
        as_trained=config.compile,
    )
