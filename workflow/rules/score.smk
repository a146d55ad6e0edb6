# Every picture by every reward of the preset; scores that are current are kept.


rule rewards:
    output:
        "<results>/scores/rewards.json",
    log:
        "<logs>/score/rewards.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        rewards=specs.rewards_json(EXPERIMENT),
    shell:
        "printf '%s\\n' {params.rewards:q} > {output} 2> {log}"


rule score:
    input:
        images=rules.generate.output,
        rewards=rules.rewards.output,
        weights=PLAN.scored_rewards,
    output:
        "<results>/scores/{cell}/seed{seed}/index.json",
    log:
        "<logs>/score/{cell}/seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=PLAN.resource("score", "gpu"),
        mem_mb=PLAN.resource("score", "mem_mb"),
        runtime=PLAN.resource("score", "runtime"),
    params:
        code=PLAN.score_code,
    message:
        "Scoring {wildcards.cell}, seed {wildcards.seed}"
    shell:
        "python -m mixgrpo score --images {input.images} --rewards {input.rewards}"
        " --index {output} --code {params.code} > {log} 2>&1"
