# Pictures of each run: all sets that tables and figures ask for, in one job.


def evaluation(wildcards):
    return plan.evaluation_json(EXPERIMENT, wildcards.cell)


def tuned_model(wildcards):
    trained = EXPERIMENT.cells[wildcards.cell].trained
    return rules.train.output.model if trained else []


def tuned_option(wildcards):
    if not EXPERIMENT.cells[wildcards.cell].trained:
        return ""
    return f"--model {EXPERIMENT.results}/runs/{wildcards.cell}/seed{wildcards.seed}/model.safetensors"


def evaluation_prompts(wildcards):
    return set_files(wildcards.cell, "prompts", ".tsv")


def evaluation_embeddings(wildcards):
    model = settings_of(wildcards.cell).model.name
    return set_files(wildcards.cell, f"embeddings/{model}", ".safetensors")


def embeddings_directory(wildcards):
    return f"{EXPERIMENT.results}/embeddings/{settings_of(wildcards.cell).model.name}"


def generate_code(wildcards):
    return code("generate", models=[settings_of(wildcards.cell).model.name])


rule evaluation:
    output:
        "<results>/images/{cell}/seed{seed}/evaluation.json",
    log:
        "<logs>/evaluation/{cell}/seed{seed}.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        evaluation=evaluation,
    message:
        "Evaluation of {wildcards.cell}, seed {wildcards.seed}"
    shell:
        "printf '%s\\n' {params.evaluation:q} > {output} 2> {log}"


# Only the index is declared: a set that is there under the same key is kept, so that asking for one
# more set, or scoring by one more reward, makes only that.
rule generate:
    input:
        settings=rules.settings.output,
        evaluation=rules.evaluation.output,
        model=tuned_model,
        base=base_of_cell,
        prompts=evaluation_prompts,
        embeddings=evaluation_embeddings,
    output:
        "<results>/images/{cell}/seed{seed}/index.json",
    log:
        "<logs>/generate/{cell}/seed{seed}.log",
    conda:
        "../../environment.yml"
    threads: 1
    params:
        model=tuned_option,
        prompts=f"{EXPERIMENT.results}/prompts",
        embeddings=embeddings_directory,
        code=generate_code,
    message:
        "Generating pictures of {wildcards.cell}, seed {wildcards.seed}"
    shell:
        "python -m mixgrpo generate --settings {input.settings} --evaluation {input.evaluation}"
        " {params.model} --prompts {params.prompts} --embeddings {params.embeddings}"
        " --index {output} --code {params.code} > {log} 2>&1"
