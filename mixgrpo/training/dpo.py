"""Flow-DPO, offline and online (Table 3): the best and the worst image of each group are a pair.

Groups are sampled by the plain ODE, each image from its own noise: offline by the base model, the same for
an iteration of any epoch, so that they could have been made once; online by the policy. The reference is
the base model; online it becomes the policy now and then.
"""

import torch
from torch import Tensor

from mixgrpo.algorithm.loss import dpo_loss
from mixgrpo.algorithm.schedule import SCHEDULES, shifted
from mixgrpo.algorithm.transition import latent_mean
from mixgrpo.config import DpoConfig
from mixgrpo.models import Policy
from mixgrpo.records import Conditioning
from mixgrpo.training.randomness import normal
from mixgrpo.training.rollout import Finished, groups_at_a_time, sample_ode
from mixgrpo.training.trainer import Trainer, optimizer_step


class DpoIteration:
    """One iteration on the prompts in `rows`; making it samples, and says of groups that they are finished."""

    def __init__(
        self, trainer: Trainer, rows: list[int], iteration: int, finished: Finished | None = None
    ) -> None:
        assert trainer.settings.dpo is not None
        assert trainer.base is not None
        self.trainer, self.rows, self.iteration = trainer, rows, iteration
        self.config: DpoConfig = trainer.settings.dpo
        self.reference: Policy = trainer.base
        if self.refreshes(iteration):
            copy_trained(trainer.distributed.unwrap(trainer.policy.network), self.reference.network)
        self.cond = trainer.cond.take(torch.tensor(rows)).to(trainer.distributed.device)
        settings = trainer.settings
        self.sigmas = SCHEDULES[settings.model.schedule](
            settings.sampling.num_steps, settings.sampling.shift
        )
        sampler = self.reference if self.config.pairs == "offline" else trainer.policy
        evaluated = sampler.num_evaluations
        self.latents = self.sample(sampler, finished)
        if sampler is not trainer.policy:
            trainer.policy.num_evaluations += sampler.num_evaluations - evaluated

    def sample(self, sampler: Policy, finished: Finished | None) -> Tensor:
        """Final samples (B, ...) of all groups, prompt-major."""
        training = self.trainer.settings.training
        parts = []
        for prompts in groups_at_a_time(len(self.rows), training.group_size, training.micro_batch):
            latents = sample_ode(
                sampler,
                self.cond.take(torch.tensor(prompts)).repeat_interleave(training.group_size),
                self.sigmas,
                torch.cat([self.noise(self.rows[p], training.group_size) for p in prompts]),
                micro_batch=training.micro_batch,
            )
            if finished is not None:
                finished(prompts, latents)
            parts.append(latents)
        return torch.cat(parts)

    def refreshes(self, iteration: int) -> bool:
        """Whether the reference becomes the policy before this iteration, on the paper's clock."""
        clock, interval = (
            self.trainer.settings.training.window_clock,
            self.config.reference_interval,
        )
        due = iteration * clock // interval > (iteration - 1) * clock // interval
        return self.config.pairs == "online" and iteration > 0 and due

    def noise(self, row: int, group_size: int) -> Tensor:
        """(G, ...) noise that one prompt's images start from."""
        trainer = self.trainer
        when = () if self.config.pairs == "offline" else (self.iteration,)
        shape = (group_size, *trainer.policy.latent_shape)
        prompt = trainer.prompts[row].id
        return normal(shape, trainer.settings.seed, "pairs", *when, prompt).to(
            trainer.distributed.device
        )

    @property
    def facts(self) -> dict[str, float]:
        """Metrics of the sampling."""
        return {"window_start": 0, "window_size": 0, "rollout_nfe": len(self.sigmas) - 1.0}

    def optimise(self, advantages_PG: Tensor) -> dict[str, float]:
        """`num_updates` optimizer updates, each at its share of the noise levels; means of their metrics."""
        trainer, training = self.trainer, self.trainer.settings.training
        groups = self.latents.unflatten(0, advantages_PG.shape)
        index = torch.arange(len(groups))
        winners, losers = (
            groups[index, at(1)] for at in (advantages_PG.argmax, advantages_PG.argmin)
        )
        levels = self.config.num_levels // training.num_updates
        per_update = []
        for update in range(training.num_updates):
            trainer.optimizer.zero_grad(set_to_none=True)
            sums = self.accumulate(winners, losers, levels=levels, update=update)
            norm = optimizer_step(trainer, sums["loss"], iteration=self.iteration, update=update)
            per_update.append({**sums, "grad_norm": norm})
        means = {
            n: torch.stack([torch.as_tensor(u[n]) for u in per_update]).mean().item()
            for n in per_update[0]
        }
        return {**means, "update_nfe": float(self.config.num_levels)}

    def accumulate(
        self, winners: Tensor, losers: Tensor, *, levels: int, update: int
    ) -> dict[str, Tensor]:
        """Backpropagate the loss of all pairs (P, ...) at `levels` noise levels; sums of metrics over them."""
        trainer, shape = self.trainer, tuple(winners.shape[1:])
        purpose = [
            (trainer.settings.seed, "levels", self.iteration, update, trainer.prompts[row].id)
            for row in self.rows
        ]
        noise = torch.cat([normal((levels, *shape), *p, "noise") for p in purpose]).to(winners)
        u = torch.cat([normal((levels,), *p, "sigma") for p in purpose]).sigmoid().double()
        sigma = shifted(u, trainer.settings.sampling.shift)
        pair = torch.arange(len(winners)).repeat_interleave(levels)
        sums: dict[str, Tensor] = {}
        size = max(1, trainer.settings.training.micro_batch // 2)
        for part, _ in trainer.passes(torch.arange(len(pair)).split(size)):  # as many everywhere
            x0 = torch.stack([winners[pair[part]], losers[pair[part]]])
            winner, loser, reference_winner, reference_loser = (
                error
                for policy in (trainer.policy, self.reference)
                for error in flow_error(
                    policy, x0, noise[part], sigma[part], self.cond.take(pair[part])
                )
            )
            loss, metrics = dpo_loss(
                winner, loser, reference_winner, reference_loser, self.config.beta
            )
            share = len(part) / len(pair)
            (loss * (share * trainer.loss_weight)).backward()
            for name, value in {**metrics, "loss": loss.detach()}.items():
                sums[name] = sums.get(name, 0.0) + share * value
        return sums


def flow_error(
    policy: Policy, x0: Tensor, noise: Tensor, sigma: Tensor, cond: Conditioning
) -> Tensor:
    """Flow-matching errors (2, N) of winners and losers at one noise: mean ||v(x_sigma) - (eps - x0)||^2.

    x0: (2, N, ...). noise: (N, ...). sigma: (N,) float64. Without gradient where the policy has none.
    """
    level = sigma.to(x0.dtype).to(x0.device).view(-1, *[1] * (noise.ndim - 1))
    x = (1 - level) * x0 + level * noise
    rows = torch.arange(len(noise)).repeat(2)
    v = policy.conditional_velocity(x.flatten(0, 1), sigma.repeat(2), cond.take(rows))
    return latent_mean((v - (noise - x0).flatten(0, 1)) ** 2).unflatten(0, (2, -1))


@torch.no_grad()
def copy_trained(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Give `target` the weights of `source` that training changes."""
    places = dict(target.named_parameters())
    for name, parameter in source.named_parameters():
        if parameter.requires_grad:
            places[name].copy_(parameter)
