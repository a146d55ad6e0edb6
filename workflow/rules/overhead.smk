# What an iteration costs: all rows of a table, side by side in one process.


# It takes all cores, so that no other job runs beside it, and computes on one: the times are of a
# quiet machine.
rule overhead:
    input:
        settings=PLAN.overhead_settings,
        prompts=PLAN.overhead_prompts,
        embeddings=PLAN.overhead_embeddings,
        weights=PLAN.overhead_weights,
    output:
        "<results>/overhead/{table}.json",
    log:
        "<logs>/overhead/{table}.log",
    conda:
        "../../environment.yml"
    threads: ALL_CORES
    params:
        code=PLAN.overhead_code,
    message:
        "Measuring what an iteration costs, for {wildcards.table}, alone on the machine"
    shell:
        "OMP_NUM_THREADS=1 python -m mixgrpo overhead --settings {input.settings}"
        " --prompts {input.prompts} --embeddings {input.embeddings}"
        " --output {output} --code {params.code} > {log} 2>&1"
