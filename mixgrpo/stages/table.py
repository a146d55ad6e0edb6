"""Stage `table`: scores, metrics and overhead -> one table as csv, markdown, LaTeX and html."""

from pathlib import Path

from mixgrpo.files import write_text
from mixgrpo.report import gains_table, latex, markdown, paper
from mixgrpo.report import html as html_page
from mixgrpo.report.document import Document
from mixgrpo.report.overhead import read_overhead
from mixgrpo.report.published import read_published
from mixgrpo.report.table_spec import TableSpec, read_table_spec
from mixgrpo.report.views import read_view


def run(
    *,
    spec: Path,
    scores: Path,
    overhead: Path | None = None,
    csv: Path,
    md: Path,
    tex: Path,
    html: Path,
) -> None:
    """`scores` is the folder scores/ of a preset; `overhead` is read if the table has timed columns."""
    document = _document(read_table_spec(spec), scores=scores, overhead=overhead)
    write_text(csv, document.data.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
    write_text(md, markdown.render(document))
    write_text(tex, latex.render(document))
    write_text(html, html_page.render(document))


def _document(spec: TableSpec, *, scores: Path, overhead: Path | None) -> Document:
    views = [read_view(spec, index, scores) for index in range(len(spec.views))]
    if spec.kind == "gains":
        return gains_table.build(spec, views)
    return paper.build(
        spec,
        views,
        overhead=None if overhead is None else read_overhead(overhead),
        published=None if spec.published is None else read_published(Path(spec.published), spec),
    )
