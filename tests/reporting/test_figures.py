"""Figures show the numbers that they are given, also without colour, and come out the same each time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hodor.config.stages import InferenceOptions
from hodor.data.davis import load_davis
from hodor.data.images import DAVIS_PALETTE, read_labels, write_labels
from hodor.models.base import load_model
from hodor.reporting import gallery
from hodor.reporting.figures import figure_bytes, scores, training
from hodor.reporting.figures.attention import attention_maps, encoder_attention
from hodor.reporting.figures.masks import mask_strip, overlay, spread_frames
from hodor.reporting.figures.scores import Cell, gaps
from hodor.reporting.runs import Run, read_run
from hodor.reporting.selection import Report, largest_object
from tests.refused import refused
from tests.reporting.conftest import OUT, VAL


def fake_run(log) -> Run:
    return Run(Path("x/seed0"), "x", 0, {}, tuple(log), {})


def test_training_curves_show_the_log(project):
    none, soft = (read_run(project.run(f"hodor-{kind}-coco")) for kind in ("none", "soft"))
    cyclic = read_run(project.run("hodor-soft-cyclic"))
    groups = {"COCO": [("none", "none", none), ("soft", "soft", soft)], "video": [("cyclic", "soft", cyclic)]}
    figure = training.training_curves(groups)
    assert [axes.get_title() for axes in figure.axes] == ["COCO", "video"]
    raw, _, soft_raw, soft_mean = figure.axes[0].get_lines()
    assert list(raw.get_xdata()) == [line["step"] for line in none.log]
    assert list(raw.get_ydata()) == [line["loss"] for line in none.log]
    assert list(soft_raw.get_ydata()) == [line["loss"] for line in soft.log]
    labelled = [line for line in figure.axes[0].get_lines() if not line.get_label().startswith("_")]
    assert [line.get_label() for line in labelled] == ["none", "soft"]
    assert len({line.get_linestyle() for line in labelled}) == 2, "distinct without colour"
    assert training.training_curves({"COCO": [("a", "soft", fake_run([]))]}) is None
    assert training.learned_alphas("a", fake_run([{"step": 1, "loss": 1.0}])) is None
    values = np.arange(40, dtype=float)
    values[20] += 50
    mean = training.running_mean(values)  # over five, fewer at the ends
    assert mean[[0, 17, 20]].tolist() == [1.0, 17.0, 30.0] and len(mean) == 40


def test_methods_in_one_panel_are_distinct_without_colour():
    log = [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)]
    labels = ["hodor", "stm", "kmn", "stcn", "dmn-aoa", "other"]
    entries = [(label, "soft" if label == "hodor" else None, fake_run(log)) for label in labels]
    # A second seed of a row looks like the first.
    figure = training.training_curves({"images": [*entries, ("stm", None, fake_run(log))]})
    lines = [line for line in figure.axes[0].get_lines() if line.get_linewidth() > 1]
    # It is not named again.
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == labels
    dashes = [str(line._unscaled_dash_pattern) for line in lines]
    assert len(set(dashes[:6])) == 6 and dashes[6] == dashes[1]
    assert len({line.get_color() for line in lines}) == 6
    assert figure.axes[0].get_ylabel() == "loss"


def test_alphas_are_drawn_against_their_own_start_values():
    starts = [32, 32, 16, 16, 8, 8, 4, 4]
    log = [
        {"step": step, "loss": 1.0, "alpha": [[a + 0.1 * head * step for head, a in enumerate(starts)]] * 3}
        for step in (1, 2)
    ]
    figure = training.learned_alphas("row", fake_run(log))
    assert [axes.get_title() for axes in figure.axes] == ["layer 1", "layer 2", "layer 3"]
    lines = figure.axes[2].get_lines()[:8]
    for head, line in enumerate(lines):
        assert list(line.get_ydata()) == pytest.approx([0.1 * head, 0.2 * head])
    assert len({(line.get_linestyle(), line.get_color()) for line in lines}) == 4
    legend = figure.legends[0].get_texts()
    assert [text.get_text() for text in legend] == ["start 32", "start 16", "start 8", "start 4"]


def test_an_overlay_mixes_objects_and_leaves_the_rest():
    frame = np.full((30, 40, 3), 100, np.uint8)
    labels = np.zeros((30, 40), np.uint8)
    labels[5:20, 5:20] = 2
    labels[25:, 30:] = 255
    result = overlay(frame, labels, opacity=0.5)
    assert (result[labels != 2] == 100).all()  # background and void
    assert (result[12, 12] == (100 + DAVIS_PALETTE[2].astype(int)) / 2).all()
    assert (result[5, 12] == DAVIS_PALETTE[2]).all()  # the outline
    refused("one size", overlay, frame, labels[:, :-1])


def test_a_strip_shows_truth_and_systems_on_evenly_spread_frames(project):
    video = load_davis(project.data / "davis", "val")[0]
    masks = {row: project.run(row) / VAL / "masks" / video.name for row in ("hodor-none-coco", "hodor-soft-coco")}
    figure = mask_strip(video, masks, {"hodor-soft-coco": 61.25}, columns=3)
    assert len(figure.axes) == 3 * 3
    assert [axes.get_title() for axes in figure.axes[:3]] == ["frame 0", "frame 2", "frame 5"]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["ground truth", "hodor-none-coco", "hodor-soft-coco\nJ&F 61.2"]
    images = [axes.images[0].get_array() for axes in figure.axes]
    expected = overlay(video.frame("00002"), video.labels("00002"))
    assert np.array_equal(images[1], expected)
    assert not np.array_equal(images[4], expected)  # the other system's mask lies elsewhere
    # A marked frame takes the place of the nearest.
    assert spread_frames(video, 3, through=["00003"]) == ["00000", "00003", "00005"]
    assert len(spread_frames(video, 99)) == 6
    (masks["hodor-soft-coco"] / "00000.png").unlink()  # external masks may lack it
    figure = mask_strip(video, masks, {}, columns=3)
    assert np.array_equal(figure.axes[6].images[0].get_array(), video.frame("00000"))
    (masks["hodor-soft-coco"] / "00002.png").unlink()
    refused("hodor-soft-coco.*00002.png", mask_strip, video, masks, {}, columns=3)


@pytest.mark.parametrize(
    "format, magic", [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG"), ("jpeg", b"\xff\xd8")]
)
def test_the_same_figure_has_the_same_bytes(project, format, magic):
    run = read_run(project.run("hodor-soft-coco"))
    first, second = (figure_bytes(training.learned_alphas("row", run), format) for _ in range(2))
    assert first == second and first.startswith(magic)
    assert not [mark for mark in (b"Matplotlib v", b"dc:date", b"CreationDate") if mark in first]
    assert figure_bytes(training.learned_alphas("other", run), format) != first


def test_intervals_show_each_cell_and_say_what_was_not_run():
    rows = [Cell("a", "val J&F", 50.0, 45.0, 53.0, paper=77.5), Cell("b", "val J&F", None), Cell("a", "G", None)]
    figure = scores.intervals([*rows, Cell("b", "G", None)], "bootstrap")
    assert [axes.get_title() for axes in figure.axes] == ["val J&F"], "a column without numbers has no panel"
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].get_lines()]
    assert drawn == [([45.0, 53.0], [0, 0]), ([50.0], [0]), ([77.5], [0])]
    assert "not run" in [text.get_text() for text in figure.axes[0].texts]
    assert scores.intervals([Cell("a", "G", None)], "") is None


@pytest.mark.parametrize(
    ("changed", "beside", "interval", "extra", "about"),
    [
        ({}, True, (48, 52), (60, 58), "standard deviation"),
        ({"J&F_low": "41", "J&F_high": "55"}, False, (41, 55), (None, None), "bootstrap"),
        ({"J&F": "not run", "J&F_std": ""}, False, (None, None), (None, None), "No intervals"),
    ],
)
def test_cells_have_the_bootstrap_interval_else_the_spread_else_none(changed, beside, interval, extra, about):
    line = {"row": "r", "label": "R", "benchmark": VAL, "J&F": "50", "J&F_std": "2", "paper_J&F": "60"}
    line |= {"J&F_low": "", "J&F_high": ""} | changed
    released = pd.DataFrame({"row": ["r", "r"], "benchmark": [VAL, "x"], "released_J&F": ["58", ""]})
    with_bootstrap = line | {"row": "other", "J&F_low": "1", "J&F_high": "99"}
    (cell,), sentence = gallery.cells("ablation", pd.DataFrame([line]), released if beside else None)
    assert (cell.low, cell.high) == interval and (cell.paper, cell.released) == extra and about in sentence
    *_, sentence = gallery.cells("ablation", pd.DataFrame([with_bootstrap, line]), None)
    assert "bootstrap" in sentence and ("standard deviation" in sentence) == (about == "standard deviation")


def test_a_scatter_counts_both_sides_of_the_diagonal():
    x, y = {"a": 10.0, "b": 50.0, "c": 60.0, "d": 5.0}, {"a": 20.0, "b": 40.0, "c": 70.0, "d": 5.0}
    figure = scores.object_scatter([("COCO", "none", "soft", x, y)])
    points = figure.axes[0].get_lines()[1]
    assert list(zip(points.get_xdata(), points.get_ydata())) == [(10, 20), (50, 40), (60, 70), (5, 5)]
    assert [text.get_text() for text in figure.axes[0].texts] == ["soft better: 2", "none better: 1"]
    with pytest.raises(KeyError):
        scores.object_scatter([("COCO", "none", "soft", x, {"a": 1.0})])
    assert scores.object_scatter([]) is None


def test_j_over_time_shades_where_the_object_is_gone():
    frames = ["00000", "00001", "00002", "00003"]
    j = {(1, "00001"): 0.5, (1, "00002"): 0.25, (2, "00001"): 1.0, (2, "00002"): 0.0}
    present = {1: [True, False, False, True], 2: [True] * 4}
    figure = scores.region_over_time(frames, present, {"COCO": [("none", "none", j), ("soft", "soft", j)], "no": []})
    first, second = figure.axes
    assert [patch.get_extents().width > 0 for patch in first.patches] == [True] and not second.patches
    span = first.patches[0]
    assert (span.get_x(), span.get_x() + span.get_width()) == (0.5, 2.5)
    assert list(first.get_lines()[0].get_xdata()) == [1, 2] and list(first.get_lines()[1].get_ydata()) == [0.5, 0.25]
    assert len({str(line.get_linestyle()) for line in first.get_lines()}) == 2, "distinct without colour"
    names = [text.get_text() for text in second.get_legend().get_texts()]
    assert names == ["not in the frame", "none", "soft"] and first.get_title() == "COCO"
    assert gaps([False, True, False, False]) == [(0, 0), (2, 3)] and gaps([True]) == []
    assert scores.region_over_time(frames, present, {}) is None


def test_the_weights_of_each_layer_and_head_for_one_object(project):
    video, inference = load_davis(project.data / "davis", "val")[0], {"short_side": 64}
    path = project.run("hodor-soft-coco") / "model.safetensors"
    layers = encoder_attention(path, inference, video, 2)
    assert [layer.label for layer in layers] == ["layer 1", "layer 2"]
    _, method = load_model(path, InferenceOptions(**inference))
    for layer, module in zip(layers, method.network.encoder.layers, strict=True):
        assert layer.maps.shape == (4, 8, 15) and layer.mask.shape == (8, 15)  # 64 x 114 pixels at stride 8
        assert list(layer.alphas) == pytest.approx(module.cross_attention.alpha.tolist())
        # An object's own probabilities are above 0 everywhere; a background descriptor's mask is 0 beyond its patch.
        assert (layer.mask > 0).all()
        assert (layer.maps >= 0).all() and (layer.maps.sum((1, 2)) <= 1 + 1e-5).all()
        assert layer.reach == pytest.approx((54, 15 * 8 * 96 / 114))
    other = encoder_attention(path, inference, video, 1)
    assert not np.allclose(other[0].mask, layers[0].mask) and not np.allclose(other[0].maps, layers[0].maps)
    none = project.run("hodor-none-coco") / "model.safetensors"
    assert encoder_attention(none, inference, video, 1)[0].alphas is None
    figure = attention_maps(video.frame("00001"), 1, other)
    assert len(figure.axes) == 2 * 5
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles[0] == "object 1" and titles[1].startswith("head 1, α 32.25\n") and titles[4].endswith("% inside")
    shown = figure.axes[1].images[1].get_array()
    assert float(shown.max()) == 1.0 and np.allclose(shown * other[0].maps[0].max(), other[0].maps[0])
    refused("object 7 is too small", encoder_attention, path, inference, video, 7)
    path.unlink()
    refused("no such model file", encoder_attention, path, {}, video, 1)


def test_an_object_of_a_few_pixels_costs_a_figure_and_not_the_report(tabulated):
    report = Report(OUT, tabulated.runs, tabulated.data)
    video = report.videos["walk"]
    assert largest_object(video) == 1  # equal areas: the lower id
    assert largest_object(replace(video, first_seen={1: "00003"})) is None
    assert [shown.name for shown in gallery.attention(report)] == ["attention_rows", "attention_layers"]
    for path in (tabulated.data / "davis" / "DAVIS" / "Annotations" / "480p").glob("*/00000.png"):
        labels = read_labels(path)
        small = np.zeros_like(labels)
        for k in np.unique(labels[labels > 0]):
            small.flat[np.flatnonzero(labels == k)[0]] = k
        write_labels(path, small)
    assert list(gallery.attention(Report(report.results, tabulated.runs, tabulated.data))) == []
