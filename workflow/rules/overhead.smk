# What an iteration costs, and what randomness does at each step: measurements beside the trainings.


rule overhead_plan:
    output:
        "<results>/overhead/plan.json",
    log:
        "<logs>/overhead/plan.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        plan=specs.overhead_json(EXPERIMENT),
    shell:
        "printf '%s\\n' {params.plan:q} > {output} 2> {log}"


# All cells of a model whose times are shown take turns in one process, on the clock of its own CPU time;
# so other jobs may run beside it.
rule overhead:
    input:
        plan=rules.overhead_plan.output,
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
    resources:
        gpu=PLAN.resource("overhead", "gpu"),
        mem_mb=PLAN.resource("overhead", "mem_mb"),
        runtime=PLAN.resource("overhead", "runtime"),
    params:
        code=PLAN.overhead_code,
    message:
        "Measuring what an iteration costs, with {wildcards.model}"
    shell:
        "OMP_NUM_THREADS=1 python -m mixgrpo overhead --settings {input.settings}"
        " --prompts {input.prompts} --embeddings {input.embeddings}"
        " --plan {input.plan} --output {output} --code {params.code} > {log} 2>&1"


# What was measured, of all models, beside the paper's: `make overhead`.
rule costs:
    input:
        specs=REPORT.cost_specs,
        overheads=collect("<results>/overhead/{model}.json", model=PLAN.timed_models),
    output:
        md="<results>/overhead/costs.md",
        csv="<results>/overhead/costs.csv",
    log:
        "<logs>/overhead/costs.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    params:
        code=code("costs"),
    message:
        "Writing what an iteration costs"
    shell:
        "python -m mixgrpo costs --specs {input.specs} --overheads {input.overheads}"
        " --md {output.md} --csv {output.csv} --code {params.code} > {log} 2>&1"


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
    resources:
        gpu=PLAN.resource("spread", "gpu"),
        mem_mb=PLAN.resource("spread", "mem_mb"),
        runtime=PLAN.resource("spread", "runtime"),
    params:
        code=PLAN.spread_code,
    message:
        "Measuring what one random step does to the pictures of {wildcards.model}"
    shell:
        "python -m mixgrpo spread --settings {input.settings} --prompts {input.prompts}"
        " --embeddings {input.embeddings} --output {output} --code {params.code} > {log} 2>&1"
