from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


pathvars:
    results=EXPERIMENT.results,
    logs=f"logs/{EXPERIMENT.preset}",
    benchmarks=f"{EXPERIMENT.results}/benchmarks",


include: "workflow/rules/base.smk"
include: "workflow/rules/prompts.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/overhead.smk"
include: "workflow/rules/report.smk"


# Before what costs GPU-hours, and before its dry run: every cell and every table.
if workflow.is_main_process and needs_gpus(EXPERIMENT):
    print(plan_costs(EXPERIMENT), file=sys.stderr, flush=True)


onstart:
    print(
        forecast(
            EXPERIMENT,
            workflow.dag.needrun_jobs(),
            cores=workflow.resource_settings.cores or 1,
        ),
        file=sys.stderr,
        flush=True,
    )


rule all:
    default_target: True
    input:
        collect("<results>/tables/{table}.md", table=TABLES),
        collect("<results>/figures/{figure}.png", figure=EXPERIMENT.figures),
        "<results>/index.html",


rule sweep:
    input:
        "<results>/tables/sweep.md",
