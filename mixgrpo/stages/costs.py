"""Stage `costs`: everything that `overhead` measured, of all timed tables, on one page and as csv."""

from collections.abc import Sequence
from pathlib import Path

from mixgrpo.files import write_text
from mixgrpo.report import cost_tables, markdown
from mixgrpo.report.overhead import read_overhead
from mixgrpo.report.published import read_published
from mixgrpo.report.table_spec import read_table_spec


def run(*, specs: Sequence[Path], overheads: Sequence[Path], md: Path, csv: Path) -> None:
    """`specs`: tables/{table}.json. `overheads`: overhead/{model}.json; each table is shown with that of its cells."""
    tables = [read_table_spec(path) for path in specs]
    published = {
        spec.table: read_published(Path(spec.published), spec)
        for spec in tables
        if spec.published is not None
    }
    found = cost_tables.match(tables, [read_overhead(path) for path in overheads], published)
    document = cost_tables.build(found)
    write_text(csv, document.data.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
    write_text(md, markdown.render(document))
