"""Attention maps are those of the network, of the object asked for, under the mask that it predicted."""

from dataclasses import replace

import numpy as np
import pytest

from hodor.config.inference import InferenceOptions
from hodor.data.davis import load_davis
from hodor.data.images import read_labels, write_labels
from hodor.errors import HodorError
from hodor.models.base import load_model
from hodor.reporting import figures, gallery
from hodor.reporting.attention import encoder_attention, largest_object
from hodor.reporting.report import Report


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
    assert (
        encoder_attention(project.run("hodor-none-coco") / "model.safetensors", inference, video, 1)[0].alphas is None
    )


def test_what_cannot_be_looked_into_is_one_error(project):
    video = load_davis(project.data / "davis", "val")[0]
    path = project.run("hodor-soft-coco") / "model.safetensors"
    with pytest.raises(HodorError, match="object 7 is too small"):
        encoder_attention(path, {"short_side": 64}, video, 7)
    path.unlink()
    with pytest.raises(HodorError, match="no such model file"):
        encoder_attention(path, {}, video, 1)


def test_an_object_of_a_few_pixels_costs_a_figure_and_not_the_report(project):
    report = Report(project.folder / "results", project.runs, project.data)
    project.tabulate(report.results)
    assert [shown.name for shown in gallery.attention(report)] == ["attention_rows", "attention_layers"]
    for path in (project.data / "davis" / "DAVIS" / "Annotations" / "480p").glob("*/00000.png"):
        labels = read_labels(path)
        small = np.zeros_like(labels)
        for k in np.unique(labels[labels > 0]):
            small.flat[np.flatnonzero(labels == k)[0]] = k
        write_labels(path, small)
    assert list(gallery.attention(Report(report.results, project.runs, project.data))) == []


def test_the_largest_object_of_the_first_frame(project):
    video = load_davis(project.data / "davis", "val")[0]
    assert largest_object(video) == 1  # equal areas: the lower id
    assert largest_object(replace(video, first_seen={2: "00000"})) == 2
    assert largest_object(replace(video, first_seen={1: "00003"})) is None


def test_maps_stand_in_a_line_with_alpha_and_the_share_inside(project):
    video = load_davis(project.data / "davis", "val")[0]
    layers = encoder_attention(project.run("hodor-soft-coco") / "model.safetensors", {"short_side": 64}, video, 1)
    figure = figures.attention_maps(video.frame("00001"), 1, layers)
    assert len(figure.axes) == 2 * 5
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles[0] == "object 1" and titles[1].startswith("head 1, α 32.25\n") and titles[4].endswith("% inside")
    shown = figure.axes[1].images[1].get_array()
    assert float(shown.max()) == 1.0 and np.allclose(shown * layers[0].maps[0].max(), layers[0].maps[0])
    assert figures.attention_maps(video.frame("00001"), 1, []) is None
