"""The paper's section 3, in torch alone: no files, no ranks, no devices, no models.

`schedule` the noise levels, `window` the steps sampled by SDE at an iteration, `transition` one step
and its density, `dpm` the solver of Flash's tail, `advantage` from rewards to advantages, `loss` the
clipped objective, `nfe` what a rollout and an update cost. Of the package it imports `mixgrpo.config`
alone, for `WindowConfig`.
"""
