"""Figures show the numbers that they were given, also without colour, and come out the same each time."""

from pathlib import Path

import numpy as np
import pytest

from hodor.data.davis import load_davis
from hodor.data.images import DAVIS_PALETTE
from hodor.errors import HodorError
from hodor.reporting import figures
from hodor.reporting.runs import Run, read_run

VAL = "davis2017-val"


def fake_run(log) -> Run:
    return Run(Path("x/seed0"), "x", 0, {}, tuple(log), {})


def test_training_curves_show_the_log(project):
    none, soft = (read_run(project.run(f"hodor-{kind}-coco")) for kind in ("none", "soft"))
    cyclic = read_run(project.run("hodor-soft-cyclic"))
    groups = {"COCO": [("none", "none", none), ("soft", "soft", soft)], "video": [("cyclic", "soft", cyclic)]}
    figure = figures.training_curves(groups)
    assert [axes.get_title() for axes in figure.axes] == ["COCO", "video"]
    raw, _, soft_raw, soft_mean = figure.axes[0].get_lines()
    assert list(raw.get_xdata()) == [line["step"] for line in none.log]
    assert list(raw.get_ydata()) == [line["loss"] for line in none.log]
    assert list(soft_raw.get_ydata()) == [line["loss"] for line in soft.log]
    labelled = [line for line in figure.axes[0].get_lines() if not line.get_label().startswith("_")]
    assert [line.get_label() for line in labelled] == ["none", "soft"]
    assert len({line.get_linestyle() for line in labelled}) == 2, "told apart without colour"


def test_methods_in_one_panel_are_told_apart_without_colour():
    log = [{"step": step, "loss": 1.0 / step} for step in (1, 2, 3)]
    labels = ["hodor", "stm", "kmn", "stcn", "dmn-aoa", "other"]
    entries = [(label, "soft" if label == "hodor" else None, fake_run(log)) for label in labels]
    # A second seed of a row looks like the first.
    figure = figures.training_curves({"images": [*entries, ("stm", None, fake_run(log))]})
    lines = [line for line in figure.axes[0].get_lines() if line.get_linewidth() > 1]
    # It is not named again.
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == labels
    dashes = [str(line._unscaled_dash_pattern) for line in lines]
    assert len(set(dashes[:6])) == 6 and dashes[6] == dashes[1]
    assert len({line.get_color() for line in lines}) == 6
    assert figure.axes[0].get_ylabel() == "loss"


def test_nothing_trained_means_no_figure():
    assert figures.training_curves({"COCO": [("a", "soft", fake_run([]))]}) is None
    assert figures.learned_alphas("a", fake_run([{"step": 1, "loss": 1.0}])) is None


def test_running_mean():
    values = np.arange(40, dtype=float)
    values[20] += 50
    mean = figures.running_mean(values)
    assert len(mean) == 40
    assert mean[20] == pytest.approx(20 + 50 / 5) and mean[17] == pytest.approx(17)
    assert mean[0] == pytest.approx(1.0)  # of 0, 1, 2
    assert list(figures.running_mean(np.array([3.0, 1.0]))) == [3.0, 1.0]


def test_alphas_are_drawn_against_their_own_start_values():
    starts = [32, 32, 16, 16, 8, 8, 4, 4]
    log = [
        {"step": step, "loss": 1.0, "alpha": [[a + 0.1 * head * step for head, a in enumerate(starts)]] * 3}
        for step in (1, 2)
    ]
    figure = figures.learned_alphas("row", fake_run(log))
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
    result = figures.overlay(frame, labels, opacity=0.5)
    assert (result[labels != 2] == 100).all()  # background and void
    assert (result[12, 12] == (100 + DAVIS_PALETTE[2].astype(int)) / 2).all()
    assert (result[5, 12] == DAVIS_PALETTE[2]).all()  # the outline
    with pytest.raises(HodorError, match="do not fit"):
        figures.overlay(frame, labels[:, :-1])


def test_a_strip_shows_truth_and_systems_on_evenly_spread_frames(project):
    video = load_davis(project.data / "davis", "val")[0]
    masks = {row: project.run(row) / VAL / "masks" / video.name for row in ("hodor-none-coco", "hodor-soft-coco")}
    figure = figures.mask_strip(video, masks, {"hodor-soft-coco": 61.25}, columns=3)
    assert len(figure.axes) == 3 * 3
    assert [axes.get_title() for axes in figure.axes[:3]] == ["frame 0", "frame 2", "frame 5"]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["ground truth", "hodor-none-coco", "hodor-soft-coco\nJ&F 61.2"]
    images = [axes.images[0].get_array() for axes in figure.axes]
    expected = figures.overlay(video.frame("00002"), video.labels("00002"))
    assert np.array_equal(images[1], expected)
    assert not np.array_equal(images[4], expected)  # the other system's mask lies elsewhere
    (masks["hodor-soft-coco"] / "00002.png").unlink()
    with pytest.raises(HodorError, match="hodor-soft-coco.*00002.png"):
        figures.mask_strip(video, masks, {}, columns=3)


@pytest.mark.parametrize(
    "format, magic", [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG"), ("jpeg", b"\xff\xd8")]
)
def test_the_same_figure_has_the_same_bytes(project, format, magic):
    run = read_run(project.run("hodor-soft-coco"))
    first, second = (figures.figure_bytes(figures.learned_alphas("row", run), format) for _ in range(2))
    assert first == second and first.startswith(magic)
    assert not [mark for mark in (b"Matplotlib v", b"dc:date", b"CreationDate") if mark in first]
    assert figures.figure_bytes(figures.learned_alphas("other", run), format) != first
