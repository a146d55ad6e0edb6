# The experiment that config/ describes and the wildcards, for all other files of this folder.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from mixgrpo.errors import UserError
from mixgrpo.planning import specs
from mixgrpo.planning.forecast import forecast
from mixgrpo.planning.gpu_hours import needs_gpus, plan_costs
from mixgrpo.planning.plan import Plan, code, use_own_python
from mixgrpo.planning.report_plan import ReportPlan
from mixgrpo.planning.load import load
from mixgrpo.planning.sheets import SWEEP

use_own_python()
validate(config, "../schemas/config.schema.yaml")

try:
    EXPERIMENT = load(ROOT / "config", config)
except UserError as error:
    raise WorkflowError(str(error)) from None

# Their methods are the input functions of the rules: mixgrpo/planning/plan.py, report_plan.py.
PLAN, REPORT = Plan(EXPERIMENT), ReportPlan(EXPERIMENT)
TABLES = [table for table in EXPERIMENT.tables if table != SWEEP]


# Names of cells and tables are not listed: with thousands of them, matching would take minutes.
wildcard_constraints:
    cell="[a-z0-9_.-]+",
    seed=r"\d+",
    model="|".join(PLAN.models),
    dataset="|".join(PLAN.splits),
    split="train|validation|test",
    table="[a-z0-9_]+",
    figure="[a-z0-9_]+",
