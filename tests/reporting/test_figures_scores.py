"""Figures of scores show the numbers that they were given."""

import pytest

from hodor.data.davis import load_davis
from hodor.reporting import cells, figures
from hodor.reporting.figures.costs import Cost
from hodor.reporting.figures.masks import spread_frames
from hodor.reporting.figures.scores import Cell, gaps


def test_intervals_show_each_cell_and_say_what_was_not_run():
    rows = [Cell("a", "val J&F", 50.0, 45.0, 53.0, paper=77.5), Cell("b", "val J&F", None), Cell("a", "G", None)]
    figure = figures.intervals([*rows, Cell("b", "G", None)], "bootstrap")
    assert [axes.get_title() for axes in figure.axes] == ["val J&F"], "a column without numbers has no panel"
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].get_lines()]
    assert drawn == [([45.0, 53.0], [0, 0]), ([50.0], [0]), ([77.5], [0])]
    assert "not run" in [text.get_text() for text in figure.axes[0].texts]
    assert figures.intervals([Cell("a", "G", None)], "") is None


def test_cells_take_the_bootstrap_interval_then_the_spread_then_none():
    line = {"row": "r", "label": "R", "benchmark": "davis2017-val", "J&F": "50", "J&F_std": "2", "paper_J&F": "60"}
    released = {("r", "davis2017-val"): "58", ("r", "davis2017-test-dev"): "absent: fetch it"}
    cell = cells.cells("ablation", [line], True, released)[0]
    assert (cell.low, cell.high, cell.paper, cell.released) == (48, 52, 60, 58)
    assert cells.about_intervals("ablation", [line]) == cells.SPREAD
    with_interval = line | {"J&F_low": "41", "J&F_high": "55"}
    cell = cells.cells("ablation", [with_interval], False, released)[0]
    assert (cell.low, cell.high, cell.paper, cell.released) == (41, 55, None, None)
    assert cells.about_intervals("ablation", [with_interval]) == cells.BOOTSTRAP
    alone = line | {"J&F": "not run", "J&F_std": ""}
    cell = cells.cells("ablation", [alone], False, {})[0]
    assert (cell.value, cell.low, cell.high) == (None, None, None)
    assert cells.about_intervals("ablation", [alone]) == cells.NONE


def test_a_scatter_counts_both_sides_of_the_diagonal():
    x, y = {"a": 10.0, "b": 50.0, "c": 60.0, "d": 5.0}, {"a": 20.0, "b": 40.0, "c": 70.0, "d": 5.0}
    figure = figures.object_scatter([("COCO", "none", "soft", x, y)])
    points = figure.axes[0].get_lines()[1]
    assert list(zip(points.get_xdata(), points.get_ydata())) == [(10, 20), (50, 40), (60, 70), (5, 5)]
    assert [text.get_text() for text in figure.axes[0].texts] == ["soft better: 2", "none better: 1"]
    with pytest.raises(KeyError):
        figures.object_scatter([("COCO", "none", "soft", x, {"a": 1.0})])
    assert figures.object_scatter([]) is None


def test_j_over_time_shades_where_the_object_is_gone():
    frames = ["00000", "00001", "00002", "00003"]
    j = {(1, "00001"): 0.5, (1, "00002"): 0.25, (2, "00001"): 1.0, (2, "00002"): 0.0}
    present = {1: [True, False, False, True], 2: [True] * 4}
    figure = figures.region_over_time(frames, present, {"COCO": [("none", "none", j), ("soft", "soft", j)], "no": []})
    first, second = figure.axes
    assert [patch.get_extents().width > 0 for patch in first.patches] == [True] and not second.patches
    span = first.patches[0]
    assert (span.get_x(), span.get_x() + span.get_width()) == (0.5, 2.5)
    assert list(first.get_lines()[0].get_xdata()) == [1, 2] and list(first.get_lines()[1].get_ydata()) == [0.5, 0.25]
    assert len({str(line.get_linestyle()) for line in first.get_lines()}) == 2, "told apart without colour"
    names = [text.get_text() for text in second.get_legend().get_texts()]
    assert names == ["not in the frame", "none", "soft"] and first.get_title() == "COCO"
    assert gaps([False, True, False, False]) == [(0, 0), (2, 3)] and gaps([True]) == []
    assert figures.region_over_time(frames, present, {}) is None


def test_costs_are_numbered_in_both_panels():
    shown = [Cost("HODOR", "soft", 60.0, 10.0, 300.0), Cost("STM", None, 50.0, 5.0, 400.0)]
    figure = figures.accuracy_against_cost(shown, "J&F", "Abacus 9")
    for axes, expected in zip(figure.axes, ([(10, 60), (5, 50)], [(300, 60), (400, 50)])):
        lines = axes.get_lines()
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines] == expected
        assert [text.get_text() for text in axes.texts] == ["1", "2"]
        assert len({line.get_marker() for line in lines}) == 2
    assert figures.accuracy_against_cost([], "", "") is None


def test_a_marked_frame_takes_the_place_of_the_nearest(project):
    walk = load_davis(project.data / "davis", "val")[0]
    assert spread_frames(walk, 3) == ["00000", "00002", "00005"]
    assert spread_frames(walk, 3, through=["00003"]) == ["00000", "00003", "00005"]
    assert len(spread_frames(walk, 99)) == 6
