#!/bin/sh
# launch.sh NODES PROCESSES ...: start a training of NODES x PROCESSES processes, by torchrun.
# Inside a Slurm job of several nodes srun starts one torchrun on each; elsewhere all processes run on this machine.
# A shutdown-timeout of an hour: asked to end, a training finishes its iteration and writes a checkpoint first.
set -eu
nodes=$1 processes=$2
shift 2
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=3600
if [ -n "${SLURM_JOB_ID:-}" ] && [ "$nodes" -gt 1 ]; then
    exec srun -n "$nodes" --ntasks-per-node=1 --kill-on-bad-exit=1 --label \
        workflow/scripts/torchrun_node.sh "$processes" "$@"
fi
exec torchrun --standalone --nproc-per-node=$((nodes * processes)) "$@"
