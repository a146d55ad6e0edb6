# One training run for each cell and seed.


# The run fully resolved, with the digest of the code it is planned with: the job reads this file and
# not config/, which may have changed by the time it starts, and refuses other code.
rule settings:
    output:
        "<results>/runs/{cell}/seed{seed}/settings.json",
    log:
        "<logs>/settings/{cell}/seed{seed}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        settings=PLAN.settings,
    shell:
        "printf '%s\\n' {params.settings:q} > {output} 2> {log}"


# `exec`, and nothing behind it: the signal that a cluster sends before it ends a job must reach the training, not a shell.
rule train:
    input:
        settings=rules.settings.output,
        prompts=PLAN.training_prompts,
        embeddings=PLAN.training_embeddings,
        base=PLAN.base,
        rewards=PLAN.trained_rewards,
    output:
        model="<results>/runs/{cell}/seed{seed}/model.safetensors",
        metrics="<results>/runs/{cell}/seed{seed}/metrics.jsonl",
    log:
        "<logs>/train/{cell}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train/{cell}/seed{seed}.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=PLAN.resource("train", "gpu"),
        mem_mb=PLAN.resource("train", "mem_mb"),
        runtime=PLAN.resource("train", "runtime"),
        launch=PLAN.resource("train", "launch"),
        nodes=PLAN.resource("train", "nodes"),
        tasks=PLAN.resource("train", "tasks"),
        tasks_per_gpu=PLAN.resource("train", "tasks_per_gpu"),
        mpi=PLAN.resource("train", "mpi"),
        slurm_extra=PLAN.resource("train", "slurm_extra"),
    params:
        checkpoints=f"{PLAN.results}/checkpoints",
    message:
        "Training {wildcards.cell}, seed {wildcards.seed}"
    shell:
        "exec {resources.launch} -m mixgrpo train --settings {input.settings} --prompts {input.prompts}"
        " --embeddings {input.embeddings} --checkpoints {params.checkpoints}"
        " --model {output.model} --metrics {output.metrics} > {log} 2>&1"
