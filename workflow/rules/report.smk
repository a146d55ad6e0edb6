# Tables and figures, each from a spec that holds all it shows.


rule table_spec:
    output:
        "<results>/tables/{table}.json",
    log:
        "<logs>/table/{table}_spec.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=PLAN.table_spec,
    shell:
        "printf '%s\\n' {params.spec:q} > {output} 2> {log}"


rule table:
    input:
        spec=rules.table_spec.output,
        scores=PLAN.table_scores,
        overhead=PLAN.table_overhead,
        published=PLAN.table_published,
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
        scores=f"{PLAN.results}/scores",
        overhead=PLAN.overhead_option,
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
        spec=PLAN.figure_spec,
    shell:
        "printf '%s\\n' {params.spec:q} > {output} 2> {log}"


rule figure:
    input:
        spec=rules.figure_spec.output,
        files=PLAN.figure_files,
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
        code=PLAN.figure_code,
    message:
        "Drawing {wildcards.figure}"
    shell:
        "python -m mixgrpo figure --name {wildcards.figure} --spec {input.spec}"
        " --outputs {output.png} {output.pdf} --code {params.code} > {log} 2>&1"
