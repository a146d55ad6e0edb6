#!/bin/sh
# torchrun_node.sh PROCESSES ...: one node's torchrun, started by srun on each (launch.sh). The nodes find each other by
# what Slurm tells each of them: no host file, no ssh.
set -eu
processes=$1
shift
exec torchrun --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" --nproc-per-node "$processes" \
    --master-addr "$SLURM_LAUNCH_NODE_IPADDR" --master-port $((20000 + SLURM_JOB_ID % 20000)) "$@"
