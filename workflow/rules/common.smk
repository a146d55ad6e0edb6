# What every rule file uses: the experiment, wildcards, and named helpers. No rules here.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from mixgrpo.errors import UserError
from mixgrpo.planning import plan
from mixgrpo.planning.experiment import SWEEP, load
from mixgrpo.planning.forecast import forecast
from mixgrpo.provenance import digest, stage_modules

# Jobs say `python`: it is the one that plans them, whether or not its environment is activated.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

validate(config, "../schemas/config.schema.yaml")

try:
    EXPERIMENT = load(ROOT / "config", config)
except UserError as error:
    raise WorkflowError(str(error)) from None

TABLES = [table for table in EXPERIMENT.tables if table != SWEEP]
MODELS = {model.name: model.path for model in EXPERIMENT.sheet.models.values()}
REWARDS = {reward.name: reward.path for reward in EXPERIMENT.sheet.reward_models.values()}
DATASETS = {dataset.name: dataset.splits for dataset in EXPERIMENT.sheet.datasets.values()}


wildcard_constraints:
    cell="|".join(map(re.escape, EXPERIMENT.cells)),
    seed=r"\d+",
    model="|".join(MODELS),
    dataset="|".join(DATASETS),
    split="train|validation|test",
    table="|".join(EXPERIMENT.tables),
    figure="|".join(EXPERIMENT.figures),


def announce():
    """Say what will be done and how long it may take, before it starts."""
    jobs = [(job.rule.name, dict(job.wildcards)) for job in workflow.dag.needrun_jobs()]
    print(forecast(EXPERIMENT, jobs, cores=workflow.cores or 1), file=sys.stderr, flush=True)


def code(verb, **names):
    """Digest of the code that a job of `verb` is planned with; the job refuses any other."""
    return digest(*stage_modules(verb, **names))


def model_files(name):
    """The base model `name`: its weights, so that a changed model is seen."""
    parts = ["transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model"]
    return [f"{MODELS[name]}/{part}.safetensors" for part in parts]


def reward_files(names):
    """Weights of the rewards `names` that have any."""
    return [f"{REWARDS[name]}/model.safetensors" for name in names if REWARDS[name]]


def settings_of(cell):
    """Settings of a cell, whatever its seed."""
    return EXPERIMENT.cells[cell].settings


def set_files(cell, folder, suffix):
    """Files `folder`/{dataset}_{split}`suffix` of all that a cell is evaluated on."""
    stems = {f"{dataset}_{split}" for dataset, split, _ in EXPERIMENT.image_sets(cell)}
    return [f"{EXPERIMENT.results}/{folder}/{stem}{suffix}" for stem in sorted(stems)]


def runs_of(cells, pattern):
    """`pattern` with {cell} and {seed} of every run of `cells`."""
    return [pattern.format(cell=cell, seed=seed) for cell, seed in EXPERIMENT.runs(cells)]
