# The experiment that config/ describes and the wildcards, for all other files of this folder.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from mixgrpo.errors import UserError
from mixgrpo.planning import specs
from mixgrpo.planning.forecast import forecast
from mixgrpo.planning.plan import Plan, code, use_own_python
from mixgrpo.planning.load import SWEEP, load

use_own_python()
validate(config, "../schemas/config.schema.yaml")

try:
    EXPERIMENT = load(ROOT / "config", config)
except UserError as error:
    raise WorkflowError(str(error)) from None

# Its methods are the input functions of the rules: mixgrpo/planning/plan.py.
PLAN = Plan(EXPERIMENT)
# What a job asks for that must run alone; fewer when `--cores` is less.
ALL_CORES = os.cpu_count()
TABLES = [table for table in EXPERIMENT.tables if table != SWEEP]


wildcard_constraints:
    cell="|".join(map(re.escape, EXPERIMENT.cells)),
    seed=r"\d+",
    model="|".join(PLAN.models),
    dataset="|".join(PLAN.splits),
    split="train|validation|test",
    table="|".join(EXPERIMENT.tables),
    figure="|".join(EXPERIMENT.figures),
