# What an iteration costs: all rows of a table, side by side in one process.


def trained_rows(table):
    cells = [row.cell for row in EXPERIMENT.tables[table].rows]
    return [cell for cell in cells if EXPERIMENT.cells[cell].trained]


def overhead_settings(wildcards):
    cells = trained_rows(wildcards.table)
    return [
        f"{EXPERIMENT.results}/runs/{cell}/seed{EXPERIMENT.cells[cell].seeds[0]}/settings.json"
        for cell in cells
    ]


def overhead_prompts(wildcards):
    dataset = settings_of(trained_rows(wildcards.table)[0]).dataset
    return f"{EXPERIMENT.results}/prompts/{dataset}_train.tsv"


def overhead_embeddings(wildcards):
    found = settings_of(trained_rows(wildcards.table)[0])
    return f"{EXPERIMENT.results}/embeddings/{found.model.name}/{found.dataset}_train.safetensors"


def overhead_names(table):
    cells = [settings_of(cell) for cell in trained_rows(table)]
    models = {cell.model.name for cell in cells}
    return models, sorted({name for cell in cells for name in cell.rewards})


def overhead_files(wildcards):
    models, rewards = overhead_names(wildcards.table)
    return [*(file for name in sorted(models) for file in model_files(name)), *reward_files(rewards)]


def overhead_code(wildcards):
    models, rewards = overhead_names(wildcards.table)
    return code("overhead", models=models, rewards=rewards)


# It takes all cores, so that no other job runs beside it, and computes on one: the times are of a
# quiet machine.
rule overhead:
    input:
        settings=overhead_settings,
        prompts=overhead_prompts,
        embeddings=overhead_embeddings,
        weights=overhead_files,
    output:
        "<results>/overhead/{table}.json",
    log:
        "<logs>/overhead/{table}.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores or 1
    params:
        code=overhead_code,
    message:
        "Measuring what an iteration costs, for {wildcards.table}, alone on the machine"
    shell:
        "OMP_NUM_THREADS=1 python -m mixgrpo overhead --settings {input.settings}"
        " --prompts {input.prompts} --embeddings {input.embeddings}"
        " --output {output} --code {params.code} > {log} 2>&1"
