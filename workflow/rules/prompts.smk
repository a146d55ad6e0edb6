# Prompts of a dataset, and their text embeddings, made once.


def num_prompts(wildcards):
    return DATASETS[wildcards.dataset][wildcards.split]


def base_directory(wildcards):
    return MODELS[wildcards.model]


def text_encoder_files(wildcards):
    parts = ["text_encoder", "text_encoder_2"]
    return [f"{MODELS[wildcards.model]}/{part}/model.safetensors" for part in parts]


def embed_code(wildcards):
    return code("embed", models=[wildcards.model])


rule prompts:
    output:
        "<results>/prompts/{dataset}_{split}.tsv",
    log:
        "<logs>/prompts/{dataset}_{split}.log",
    conda:
        "../../environment.yml"
    threads: 1
    params:
        num=num_prompts,
        code=code("prompts"),
    message:
        "Writing {params.num} prompts: {wildcards.dataset}, {wildcards.split}"
    shell:
        "python -m mixgrpo prompts --dataset {wildcards.dataset} --split {wildcards.split}"
        " --num {params.num} --output {output} --code {params.code} > {log} 2>&1"


rule embed:
    input:
        prompts=rules.prompts.output,
        encoders=text_encoder_files,
    output:
        "<results>/embeddings/{model}/{dataset}_{split}.safetensors",
    log:
        "<logs>/embed/{model}/{dataset}_{split}.log",
    priority: 5
    conda:
        "../../environment.yml"
    threads: 1
    params:
        base=base_directory,
        code=embed_code,
    message:
        "Embedding prompts: {wildcards.dataset}, {wildcards.split}"
    shell:
        "python -m mixgrpo embed --model {wildcards.model} --base {params.base}"
        " --prompts {input.prompts} --output {output} --code {params.code} > {log} 2>&1"
