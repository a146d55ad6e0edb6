"""What the rules of report.smk ask the experiment: specs of tables and figures, and the files they are made from."""

from mixgrpo.planning import specs
from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.plan import Wildcards, code, known
from mixgrpo.planning.sheets import Figure, Table


class ReportPlan:
    """Each method answers one question of one rule."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.results = experiment.results

    def table_spec(self, wildcards: Wildcards) -> str:
        """The JSON that says what a table shows."""
        self._table(wildcards)
        return specs.table_json(self.experiment, wildcards.table)

    def table_scores(self, wildcards: Wildcards) -> list[str]:
        """Scores of every run in it, and of the bases that gains are over."""
        runs = self.experiment.runs(self.experiment.cells_of_table(wildcards.table))
        return [f"{self.results}/scores/{cell}/seed{seed}/index.json" for cell, seed in runs]

    def table_metrics(self, wildcards: Wildcards) -> list[str]:
        """Metrics of the runs in it, where it counts network evaluations."""
        if not self._table(wildcards).needs_metrics:
            return []
        cells = self.experiment.cells_of_table(wildcards.table)
        return [file for cell in cells for file in specs.metrics_of(self.experiment, cell)]

    def cost_specs(self, _: Wildcards) -> list[str]:
        """Specs of all tables whose cells are timed."""
        return [f"{self.results}/tables/{name}.json" for name in self.experiment.cost_tables]

    def table_overhead(self, wildcards: Wildcards) -> list[str]:
        """The measurements that it shows, if it does."""
        table = self._table(wildcards)
        if not table.needs_overhead:
            return []
        return [f"{self.results}/overhead/{self.experiment.model(table.rows[0].names[0])}.json"]

    def overhead_option(self, wildcards: Wildcards) -> str:
        """The option that names them."""
        return "".join(f"--overhead {path}" for path in self.table_overhead(wildcards))

    def table_published(self, wildcards: Wildcards) -> list[str]:
        """The published values that stand beside ours."""
        name = self._table(wildcards).published
        return [f"{self.experiment.config}/published/{name}"] if name else []

    def figure_spec(self, wildcards: Wildcards) -> str:
        """The JSON that says what a figure shows."""
        return specs.figure_json(self.experiment, wildcards.figure)

    def table_title(self, wildcards: Wildcards) -> str:
        """For the report of everything."""
        return self._table(wildcards).title

    def table_caption(self, wildcards: Wildcards) -> str:
        """For the report of everything."""
        return self._table(wildcards).caption

    def figure_title(self, wildcards: Wildcards) -> str:
        """For the report of everything."""
        return self._figure(wildcards).title

    def figure_caption(self, wildcards: Wildcards) -> str:
        """For the report of everything."""
        return self._figure(wildcards).caption

    def figure_files(self, wildcards: Wildcards) -> list[str]:
        """What the figure is drawn from, as its spec names it."""
        return specs.figure_files(self.experiment, wildcards.figure)

    def figure_code(self, wildcards: Wildcards) -> str:
        """Digest of what draws it."""
        return code("figure", figure=self._figure(wildcards).draw)

    def _table(self, wildcards: Wildcards) -> Table:
        return known(wildcards.table, self.experiment.tables)

    def _figure(self, wildcards: Wildcards) -> Figure:
        return known(wildcards.figure, self.experiment.figures)
