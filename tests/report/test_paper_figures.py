"""Figures 1 and 2: what they plot, before it is a picture."""

import json
from dataclasses import replace

import pytest
from matplotlib.text import Text
from PIL import Image

from mixgrpo.config import SamplingConfig, Settings, WindowConfig, canonical, parse
from mixgrpo.errors import UserError
from mixgrpo.report.figure_spec import read_figure_spec
from mixgrpo.report.labels import Labelled, place_labels
from mixgrpo.report.style import colours, new_figure
from mixgrpo.report.trade_off import trained_gains_of
from mixgrpo.report.window_and_spread import ODE, SDE, TAIL, blocks
from mixgrpo.stages import figure
from tests.report.results import measurement, write_metrics, write_overhead, write_scores
from tests.report.test_figure import facts


@pytest.fixture
def settings():
    model = {"name": "flux", "path": "models/flux"}
    training = {"num_iterations": 3, "group_size": 4, "num_updates": 2}
    data = {"preset": "tiny", "seed": 0, "dataset": "hpd", "model": model, "rewards": {"a": {}}}
    found = parse(data | {"training": training}, where="here")
    window = WindowConfig(size=2, interval=2)
    return replace(found, window=window, sampling=SamplingConfig(num_steps=6))


def drawn(spec):
    output = spec.with_suffix(".png")
    figure.run(spec=spec, outputs=[output])
    with Image.open(output) as picture:
        return {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}


def test_steps_are_sde_in_the_window_and_ode_around_it(settings):
    found = blocks(settings)
    first = [block for block in found if block[2] == 0]
    assert [(step, length, colour) for step, _, _, length, colour in first] == [
        (0.0, 2, SDE),
        (1.0, 2, SDE),
        (2.0, 2, ODE),
        (3.0, 2, ODE),
        (4.0, 2, ODE),
        (5.0, 2, ODE),
    ]
    # iteration 2: the window has moved by one
    second = [block for block in found if block[2] == 2]
    assert [colour for *_, colour in second] == [ODE, SDE, SDE, ODE, ODE, ODE]


def test_the_tail_is_as_wide_as_the_steps_it_stands_for(settings):
    flash = replace(settings, sampling=replace(settings.sampling, tail_ratio=0.5))
    tail = [block for block in blocks(flash) if block[2] == 0 and block[-1] == TAIL]
    assert [(step, width) for step, width, *_ in tail] == [(2.0, 2.0), (4.0, 2.0)]
    assert all(colour != TAIL for *_, colour in blocks(settings))


@pytest.mark.parametrize(
    ("where", "wanted"), [("all_but_last", [SDE] * 5 + [ODE]), ("all", [SDE] * 6)]
)
def test_every_step_may_be_sde(settings, where, wanted):
    other = replace(settings, sampling=replace(settings.sampling, sde_steps=where))
    assert [colour for *_, first, _, colour in blocks(other) if first == 0] == wanted


def test_figure02_draws_the_windows_and_the_spread(settings: Settings, tmp_path):
    flash = replace(settings, sampling=replace(settings.sampling, tail_ratio=0.5))
    cells = []
    for name, found in (("mixgrpo", settings), ("flash", flash)):
        path = tmp_path / f"{name}.json"
        path.write_text(canonical(found))
        cells.append({"cell": name, "label": name, "trained": ["a"], "settings": str(path)})
    positions = [{"step": i, "spread": 1 / (i + 1), "standard_error": 0.01} for i in range(5)]
    spread = tmp_path / "spread.json"
    more = {"num_prompts": 2, "group_size": 4, "num_steps": 6, "note": "more than is read"}
    spread.write_text(json.dumps(more | {"positions": positions}))
    spec = tmp_path / "figure02.json"
    spec.write_text(json.dumps(facts("figure02", cells, spread=str(spread), prompts=None)))
    assert {rgb(SDE), rgb(ODE), rgb(TAIL)} <= drawn(spec)
    spread.write_text(json.dumps(more | {"positions": [*positions[:1], {"step": 1}]}))
    with pytest.raises(UserError, match=r"spread.json: .*\n.*positions.1.spread"):
        drawn(spec)
    spec.write_text(
        json.dumps(facts("figure02", [cells[0] | {"settings": None}], spread=str(spread)))
    )
    spread.write_text(json.dumps(more | {"positions": positions}))
    with pytest.raises(UserError, match="mixgrpo has no settings"):
        drawn(spec)


def rgb(colour):
    return tuple(bytes.fromhex(colour[1:]))


@pytest.fixture
def trade_off(tmp_path):
    """The spec of Figure 1 with two cells."""
    scores = tmp_path / "scores"
    write_scores(scores, "base", 0, {"a": [0.0, 2.0, 4.0]}, p_mix=0.0)
    cells, costs = [], {}
    for name, gained, steps in (("dancegrpo", 1.0, 14), ("mixgrpo", 2.0, 4)):
        write_scores(scores, name, 0, {"a": [gained, 2 + gained, 4 + 3 * gained]}, p_mix=1.0)
        path = write_metrics(tmp_path / f"{name}.jsonl", {"a": [0.0]}, update_nfe=[steps])
        costs[name] = (measurement(steps / 2, 24.0, steps), measurement(steps, 25.0, steps))
        found = {"cell": name, "label": name, "trained": ["a"], "metrics": [str(path)]}
        cells.append(found | {"p_mix": 1.0})
    overhead = write_overhead(tmp_path / "overhead.json", costs)
    spec = tmp_path / "figure01.json"
    more = {"p_mix": 1.0, "scores": str(scores), "overhead": str(overhead)}
    spec.write_text(json.dumps(facts("figure01", cells, **more)))
    return spec


def test_gains_of_figure01_are_those_of_the_tables(trade_off):
    gains = trained_gains_of(read_figure_spec(trade_off))
    # sd of the base is 2: (1 + 1 + 3) / 3 / 2 and twice that
    assert gains["dancegrpo"].mean == pytest.approx(5 / 6)
    assert gains["mixgrpo"].mean == pytest.approx(5 / 3)
    assert gains["mixgrpo"].error == pytest.approx((4 / 3) ** 0.5 / 3**0.5)


def test_figure01_shows_every_cell(trade_off):
    assert {rgb(colour) for colour in colours(["dancegrpo", "mixgrpo"]).values()} <= drawn(
        trade_off
    )


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("scores/mixgrpo/seed0/index.json", "mixgrpo has no score in"),
        ("metrics", "mixgrpo has no metrics"),
        ("overhead", "mixgrpo has no time in"),
    ],
)
def test_a_point_that_cannot_be_drawn_is_an_error(trade_off, gone, message):
    spec = json.loads(trade_off.read_text())
    if gone == "metrics":
        spec["cells"][1]["metrics"] = []
    elif gone == "overhead":
        path = trade_off.parent / "overhead.json"
        costs = json.loads(path.read_text())
        del costs["rows"]["mixgrpo"]
        path.write_text(json.dumps(costs))
    else:
        (trade_off.parent / gone).unlink()
    trade_off.write_text(json.dumps(spec))
    with pytest.raises(UserError, match=message):
        drawn(trade_off)


def test_names_cover_neither_points_nor_each_other():
    axes = new_figure(4, 3).add_axes((0.1, 0.1, 0.8, 0.8))
    axes.set_xlim(0, 10)
    axes.set_ylim(0, 1)
    places = [(4.0, 0.5), (4.0, 0.52), (4.1, 0.6), (9.0, 0.5)]
    place_labels(
        axes, [Labelled(f"a name {i}", x, y, 0.03, "black") for i, (x, y) in enumerate(places)]
    )
    for name in axes.texts:
        name.get_window_extent()  # with its line; also moves it to where it will be drawn
    boxes = [Text.get_window_extent(name) for name in axes.texts]
    points = axes.transData.transform(places)
    assert len(boxes) == len(places)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(*point) for point in points)
        assert axes.get_window_extent().contains(*box.get_points()[1])
