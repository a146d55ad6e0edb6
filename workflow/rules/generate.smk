# Pictures of each run: all sets that tables and figures ask for, in one job.


rule evaluation:
    output:
        "<results>/images/{cell}/seed{seed}/evaluation.json",
    log:
        "<logs>/evaluation/{cell}/seed{seed}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        evaluation=PLAN.evaluation,
    shell:
        "printf '%s\\n' {params.evaluation:q} > {output} 2> {log}"


# Only the index is declared: a set that is there under the same key is kept, so that asking for one
# more set, or scoring by one more reward, makes only that.
rule generate:
    input:
        settings=rules.settings.output,
        evaluation=rules.evaluation.output,
        model=PLAN.tuned_model,
        base=PLAN.base,
        prompts=PLAN.evaluation_prompts,
        embeddings=PLAN.evaluation_embeddings,
    output:
        "<results>/images/{cell}/seed{seed}/index.json",
    log:
        "<logs>/generate/{cell}/seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=PLAN.resource("generate", "gpu"),
        mem_mb=PLAN.resource("generate", "mem_mb"),
        runtime=PLAN.resource("generate", "runtime"),
    params:
        model=PLAN.tuned_option,
        prompts=f"{PLAN.results}/prompts",
        embeddings=PLAN.embeddings,
        code=PLAN.generate_code,
    message:
        "Generating pictures of {wildcards.cell}, seed {wildcards.seed}"
    shell:
        "python -m mixgrpo generate --settings {input.settings} --evaluation {input.evaluation}"
        " {params.model} --prompts {params.prompts} --embeddings {params.embeddings}"
        " --index {output} --code {params.code} > {log} 2>&1"
