# What an iteration costs, and what randomness does at each step: measurements beside the trainings.


# All cells of a model whose times are shown take turns in one process, on the clock of its own CPU time;
# so other jobs may run beside it.
rule overhead:
    input:
        settings=PLAN.overhead_settings,
        prompts=PLAN.overhead_prompts,
        embeddings=PLAN.overhead_embeddings,
        weights=PLAN.overhead_weights,
    output:
        "<results>/overhead/{model}.json",
    log:
        "<logs>/overhead/{model}.log",
    wildcard_constraints:
        model="|".join(PLAN.timed_models),
    conda:
        "../../environment.yml"
    threads: 1
    params:
        code=PLAN.overhead_code,
    message:
        "Measuring what an iteration costs, with {wildcards.model}"
    shell:
        "OMP_NUM_THREADS=1 python -m mixgrpo overhead --settings {input.settings}"
        " --prompts {input.prompts} --embeddings {input.embeddings}"
        " --output {output} --code {params.code} > {log} 2>&1"


rule spread:
    input:
        settings=PLAN.spread_settings,
        prompts=PLAN.spread_prompts,
        embeddings=PLAN.spread_embeddings,
        base=PLAN.base_weights,
    output:
        "<results>/spread/{model}.json",
    log:
        "<logs>/spread/{model}.log",
    conda:
        "../../environment.yml"
    threads: 1
    params:
        code=PLAN.spread_code,
    message:
        "Measuring what one random step does to the pictures of {wildcards.model}"
    shell:
        "python -m mixgrpo spread --settings {input.settings} --prompts {input.prompts}"
        " --embeddings {input.embeddings} --output {output} --code {params.code} > {log} 2>&1"
