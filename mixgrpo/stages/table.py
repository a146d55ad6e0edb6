"""Stage `table`: scores and overhead -> one table as csv, markdown and LaTeX."""

from pathlib import Path

from mixgrpo.config import BASE_CELL
from mixgrpo.files import write_text
from mixgrpo.report import gains, latex, markdown, paper
from mixgrpo.report.document import Document
from mixgrpo.report.overhead import read_overhead
from mixgrpo.report.published import read_published
from mixgrpo.report.scores import read_scores
from mixgrpo.report.table_spec import TableSpec, read_table_spec


def run(
    *, spec: Path, scores: Path, overhead: Path | None = None, csv: Path, md: Path, tex: Path
) -> None:
    """`scores` is the folder scores/ of a preset; `overhead` is read if the table has columns of it."""
    document = _document(read_table_spec(spec), scores=scores, overhead=overhead)
    write_text(csv, document.data.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
    write_text(md, markdown.render(document))
    write_text(tex, latex.render(document))


def _document(spec: TableSpec, *, scores: Path, overhead: Path | None) -> Document:
    cells = list(dict.fromkeys([BASE_CELL] * (spec.kind == "gains") + [r.cell for r in spec.rows]))
    frame = read_scores(
        scores,
        cells=cells,
        seeds=spec.seeds,
        rewards=spec.rewards,
        dataset=spec.dataset,
        split=spec.split,
        p_mix=spec.p_mix,
    )
    if spec.kind == "gains":
        return gains.build(spec, frame)
    return paper.build(
        spec,
        frame,
        overhead=None if overhead is None else read_overhead(overhead),
        published=None if spec.published is None else read_published(Path(spec.published), spec),
    )
