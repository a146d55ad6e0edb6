# Tables and figures, each from a spec that holds all it shows.


def table_spec(wildcards):
    return plan.table_json(EXPERIMENT, wildcards.table)


def table_scores(wildcards):
    pattern = EXPERIMENT.results + "/scores/{cell}/seed{seed}/index.json"
    return runs_of(EXPERIMENT.cells_of_table(wildcards.table), pattern)


def table_overhead(wildcards):
    needed = EXPERIMENT.tables[wildcards.table].needs_overhead
    return rules.overhead.output if needed else []


def overhead_option(wildcards):
    if not EXPERIMENT.tables[wildcards.table].needs_overhead:
        return ""
    return f"--overhead {EXPERIMENT.results}/overhead/{wildcards.table}.json"


def table_published(wildcards):
    name = EXPERIMENT.tables[wildcards.table].published
    return f"{EXPERIMENT.config}/published/{name}" if name else []


def figure_spec(wildcards):
    return plan.figure_json(EXPERIMENT, wildcards.figure)


def figure_inputs(wildcards):
    return plan.figure_files(EXPERIMENT, wildcards.figure)


def figure_code(wildcards):
    return code("figure", figure=wildcards.figure)


rule table_spec:
    output:
        "<results>/tables/{table}.json",
    log:
        "<logs>/table/{table}_spec.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=table_spec,
    message:
        "Rows and columns of {wildcards.table}"
    shell:
        "printf '%s\\n' {params.spec:q} > {output} 2> {log}"


rule table:
    input:
        spec=rules.table_spec.output,
        scores=table_scores,
        overhead=table_overhead,
        published=table_published,
    output:
        csv=report(
            "<results>/tables/{table}.csv",
            category="Tables",
            caption="../report/table.rst",
            labels={"table": "{table}"},
        ),
        md="<results>/tables/{table}.md",
        tex="<results>/tables/{table}.tex",
    log:
        "<logs>/table/{table}.log",
    conda:
        "../../environment.yml"
    threads: 1
    params:
        scores=f"{EXPERIMENT.results}/scores",
        overhead=overhead_option,
        code=code("table"),
    message:
        "Making {wildcards.table}"
    shell:
        "python -m mixgrpo table --spec {input.spec} --scores {params.scores} {params.overhead}"
        " --csv {output.csv} --md {output.md} --tex {output.tex} --code {params.code} > {log} 2>&1"


rule figure_spec:
    output:
        "<results>/figures/{figure}.json",
    log:
        "<logs>/figure/{figure}_spec.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=figure_spec,
    message:
        "What {wildcards.figure} shows"
    shell:
        "printf '%s\\n' {params.spec:q} > {output} 2> {log}"


rule figure:
    input:
        spec=rules.figure_spec.output,
        files=figure_inputs,
    output:
        png=report(
            "<results>/figures/{figure}.png",
            category="Figures",
            caption="../report/figure.rst",
            labels={"figure": "{figure}"},
        ),
        pdf="<results>/figures/{figure}.pdf",
    log:
        "<logs>/figure/{figure}.log",
    conda:
        "../../environment.yml"
    threads: 1
    params:
        code=figure_code,
    message:
        "Drawing {wildcards.figure}"
    shell:
        "python -m mixgrpo figure --name {wildcards.figure} --spec {input.spec}"
        " --outputs {output.png} {output.pdf} --code {params.code} > {log} 2>&1"
