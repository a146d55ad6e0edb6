# The preset's own world: a base model and its reward models, trained from scratch.


rule pretrain_settings:
    output:
        "<results>/models/pretrain.json",
    log:
        "<logs>/pretrain/settings.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        settings=specs.pretrain_json(EXPERIMENT),
    shell:
        "printf '%s\\n' {params.settings:q} > {output} 2> {log}"


rule pretrain_model:
    input:
        settings=rules.pretrain_settings.output,
    output:
        index="<results>/models/{component}/model_index.json",
        transformer="<results>/models/{component}/transformer/diffusion_pytorch_model.safetensors",
        vae="<results>/models/{component}/vae/diffusion_pytorch_model.safetensors",
        clip="<results>/models/{component}/text_encoder/model.safetensors",
        t5="<results>/models/{component}/text_encoder_2/model.safetensors",
        samples=report(
            "<results>/models/{component}/samples.png",
            category="Base world",
            caption="../report/samples.rst",
            labels={"model": "{component}"},
        ),
    log:
        "<logs>/pretrain/{component}.log",
    benchmark:
        "<benchmarks>/pretrain/{component}.tsv"
    wildcard_constraints:
        component="flux",
    priority: 10
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=0,
    params:
        directory=subpath(output.index, parent=True),
        code=PLAN.pretrain_code,
    message:
        "Pretraining the base model {wildcards.component}"
    shell:
        "python -m mixgrpo pretrain --settings {input.settings} --component {wildcards.component}"
        " --output {params.directory} --code {params.code} > {log} 2>&1"


# It makes pictures with the first one's autoencoder, and has a third text encoder.
rule pretrain_sd3:
    input:
        settings=rules.pretrain_settings.output,
        vae="<results>/models/flux/vae/diffusion_pytorch_model.safetensors",
    output:
        index="<results>/models/{component}/model_index.json",
        transformer="<results>/models/{component}/transformer/diffusion_pytorch_model.safetensors",
        vae="<results>/models/{component}/vae/diffusion_pytorch_model.safetensors",
        clip="<results>/models/{component}/text_encoder/model.safetensors",
        clip_2="<results>/models/{component}/text_encoder_2/model.safetensors",
        t5="<results>/models/{component}/text_encoder_3/model.safetensors",
        samples=report(
            "<results>/models/{component}/samples.png",
            category="Base world",
            caption="../report/samples.rst",
            labels={"model": "{component}"},
        ),
    log:
        "<logs>/pretrain/{component}.log",
    benchmark:
        "<benchmarks>/pretrain/{component}.tsv"
    wildcard_constraints:
        component="sd3",
    priority: 10
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=0,
    params:
        directory=subpath(output.index, parent=True),
        code=PLAN.pretrain_code,
    message:
        "Pretraining the base model {wildcards.component}"
    shell:
        "python -m mixgrpo pretrain --settings {input.settings} --component {wildcards.component}"
        " --output {params.directory} --code {params.code} > {log} 2>&1"


rule pretrain_reward:
    input:
        settings=rules.pretrain_settings.output,
    output:
        config="<results>/models/{component}/config.json",
        weights="<results>/models/{component}/model.safetensors",
    log:
        "<logs>/pretrain/{component}.log",
    benchmark:
        "<benchmarks>/pretrain/{component}.tsv"
    wildcard_constraints:
        component="|".join(PLAN.rewards),
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        gpu=0,
    params:
        directory=subpath(output.config, parent=True),
        code=PLAN.pretrain_code,
    message:
        "Pretraining the reward model {wildcards.component}"
    shell:
        "python -m mixgrpo pretrain --settings {input.settings} --component {wildcards.component}"
        " --output {params.directory} --code {params.code} > {log} 2>&1"
