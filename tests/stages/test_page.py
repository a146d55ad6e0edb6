"""One html file with everything in it."""

import re

import pytest
from PIL import Image, PngImagePlugin

from mixgrpo.errors import UserError
from mixgrpo.stages import page
from tests.report.results import column, make_table, row, write_scores

ORIGIN = "preset tiny (very small); 1 training seed (0)"


@pytest.fixture
def table(tmp_path):
    write_scores(tmp_path / "scores", "base", 0, {"a": [0.0, 2.0]}, p_mix=0.0)
    rows = [row("base", "FLUX")]
    make_table(tmp_path, rows=rows, columns=[column("a")], title="Table 1: x < y", table="table01")
    return tmp_path / "out.html"


@pytest.fixture
def figure(tmp_path):
    path = tmp_path / "figure02.png"
    said = PngImagePlugin.PngInfo()
    for key, value in (("Title", "Figure 2: a & b"), ("Description", "C."), ("Source", ORIGIN)):
        said.add_text(key, value)
    Image.new("RGB", (40, 20), "red").save(path, pnginfo=said)
    return path


def made(tmp_path, **parts):
    page.run(**({"tables": [], "figures": [], "output": tmp_path / "index.html"} | parts))
    return (tmp_path / "index.html").read_text()


def test_contents_origin_tables_and_figures(tmp_path, table, figure):
    text = made(tmp_path, tables=[table], figures=[figure])
    assert '<a href="#table01">Table 1: x &lt; y</a>' in text
    assert '<a href="#figure02">Figure 2: a &amp; b</a>' in text
    assert text.count('<p class="origin">') == 1
    assert f"P{ORIGIN[1:]}." in text
    assert text.index('<article id="table01"') < text.index('<article id="figure02"')
    assert text.count("<article") == text.count("</article>") == 2
    assert 'width="20" height="10" alt="Figure 2: a &amp; b. C."' in text
    assert text.count("<html") == text.count("<style>") == 1


def test_the_page_needs_nothing_else(tmp_path, table, figure):
    text = made(tmp_path, tables=[table], figures=[figure])
    links = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "url(" not in text
    assert "<script" not in text


def test_other_seeds_are_said_too(tmp_path, table):
    other = tmp_path / "other.html"
    other.write_text(table.read_text().replace("1 training seed (0)", "2 training seeds (0, 1)"))
    text = made(tmp_path, tables=[table, other])
    assert text.count('<p class="origin">') == 2


def test_what_is_missing_or_broken_is_said(tmp_path, table, figure):
    with pytest.raises(UserError, match="at least one table or figure"):
        made(tmp_path)
    with pytest.raises(UserError, match=r"gone.html: no such file. `snakemake"):
        made(tmp_path, tables=[tmp_path / "gone.html"])
    table.write_text(table.read_text().replace("</article>", ""))
    with pytest.raises(UserError, match=r"out.html: no table in it"):
        made(tmp_path, tables=[table])
    with pytest.raises(UserError, match=r"gone.png: no such file"):
        made(tmp_path, figures=[tmp_path / "gone.png"])
    figure.write_bytes(figure.read_bytes()[:60])
    with pytest.raises(UserError, match=r"figure02.png: not a whole picture"):
        made(tmp_path, figures=[figure])
