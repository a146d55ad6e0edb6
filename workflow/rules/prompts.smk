# Prompts of a dataset, and their text embeddings, made once.


rule prompts:
    input:
        PLAN.prompts_file,
    output:
        "<results>/prompts/{dataset}_{split}.tsv",
    log:
        "<logs>/prompts/{dataset}_{split}.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    params:
        num=PLAN.num_prompts,
        file=PLAN.prompts_option,
        code=code("prompts"),
    message:
        "Writing {params.num} prompts: {wildcards.dataset}, {wildcards.split}"
    shell:
        "python -m mixgrpo prompts --dataset {wildcards.dataset} --split {wildcards.split}"
        " --num {params.num} {params.file} --output {output} --code {params.code} > {log} 2>&1"


rule embed:
    input:
        prompts=rules.prompts.output,
        encoders=PLAN.text_encoders,
    output:
        "<results>/embeddings/{model}/{dataset}_{split}.safetensors",
    log:
        "<logs>/embed/{model}/{dataset}_{split}.log",
    priority: 5
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=PLAN.resource("embed", "gpu"),
        mem_mb=PLAN.resource("embed", "mem_mb"),
        runtime=PLAN.resource("embed", "runtime"),
    params:
        base=PLAN.base_options,
        code=PLAN.embed_code,
    message:
        "Embedding prompts: {wildcards.dataset}, {wildcards.split}"
    shell:
        "python -m mixgrpo embed --model {wildcards.model} {params.base}"
        " --prompts {input.prompts} --output {output} --code {params.code} > {log} 2>&1"
