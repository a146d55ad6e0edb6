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
        spec=REPORT.table_spec,
    shell:
        "printf '%s\\n' {params.spec:q} > {output} 2> {log}"


rule table:
    input:
        spec=rules.table_spec.output,
        scores=REPORT.table_scores,
        metrics=REPORT.table_metrics,
        overhead=REPORT.table_overhead,
        published=REPORT.table_published,
    output:
        html=report(
            "<results>/tables/{table}.html",
            category="Tables",
            caption="../report/table.rst",
            labels={"table": "{table}"},
        ),
        csv="<results>/tables/{table}.csv",
        md="<results>/tables/{table}.md",
        tex="<results>/tables/{table}.tex",
    log:
        "<logs>/table/{table}.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    params:
        scores=f"{REPORT.results}/scores",
        overhead=REPORT.overhead_option,
        title=REPORT.table_title,
        caption=REPORT.table_caption,
        code=code("table"),
    message:
        "Making {wildcards.table}"
    shell:
        "python -m mixgrpo table --spec {input.spec} --scores {params.scores} {params.overhead}"
        " --csv {output.csv} --md {output.md} --tex {output.tex} --html {output.html}"
        " --code {params.code} > {log} 2>&1"


rule figure_spec:
    output:
        "<results>/figures/{figure}.json",
    log:
        "<logs>/figure/{figure}_spec.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        spec=REPORT.figure_spec,
    shell:
        "printf '%s\\n' {params.spec:q} > {output} 2> {log}"


rule figure:
    input:
        spec=rules.figure_spec.output,
        files=REPORT.figure_files,
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
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    params:
        title=REPORT.figure_title,
        caption=REPORT.figure_caption,
        code=REPORT.figure_code,
    message:
        "Drawing {wildcards.figure}"
    shell:
        "python -m mixgrpo figure --spec {input.spec} --outputs {output.png} {output.pdf}"
        " --code {params.code} > {log} 2>&1"


# Everything on one page that needs no other file.
rule page:
    input:
        tables=collect("<results>/tables/{table}.html", table=TABLES),
        figures=collect("<results>/figures/{figure}.png", figure=EXPERIMENT.figures),
    output:
        report(
            "<results>/index.html",
            category="Everything on one page",
            caption="../report/page.rst",
        ),
    log:
        "<logs>/page.log",
    localrule: True
    conda:
        "../../environment.yml"
    threads: 1
    params:
        code=code("page"),
    message:
        "Making the page of all tables and figures"
    shell:
        "python -m mixgrpo page --tables {input.tables} --figures {input.figures}"
        " --output {output} --code {params.code} > {log} 2>&1"
