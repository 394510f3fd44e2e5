"""Learning rate by step."""

import pytest

from hodor.config.loading import load
from hodor.training.optim import learning_rate
from tests.data.stages import stage as make_stage


def test_published_image_schedule():
    """Warm-up from 1e-7 to 1e-4 over 10,000 steps, a tenth from step 100,000 on (specification section 5.3)."""
    warmup = {"warmup_steps": 10_000, "warmup_start": 1e-7}
    decay = {"schedule": "step", "decay_steps": [100_000]}
    options = make_stage("images", steps=250_000, learning_rate=1e-4, **warmup, **decay)
    assert learning_rate(options, 0) == pytest.approx(1e-7, rel=0.2)
    assert learning_rate(options, 4_999) == pytest.approx(5.005e-5)
    assert learning_rate(options, 9_999) == learning_rate(options, 99_999) == 1e-4
    assert learning_rate(options, 100_000) == learning_rate(options, 249_999) == pytest.approx(1e-5)


def test_cosine_ends_near_zero_and_constant_stays():
    cosine = make_stage("images", steps=100, schedule="cosine")
    assert learning_rate(cosine, 0) == 1e-3 and learning_rate(cosine, 50) == pytest.approx(5e-4)
    assert 0 < learning_rate(cosine, 99) < 1e-6
    assert learning_rate(make_stage("images", steps=100), 99) == 1e-3


@pytest.mark.parametrize("stage", ["images", "cyclic", "dense"])
@pytest.mark.parametrize("scale", ["mini", "subset"])
def test_alpha_can_move_as_far_as_in_the_published_schedule(stage, scale, root):
    def distance(name: str) -> float:
        options = load(root / "config", {"scale": name}).scale.stages[stage]
        return options.alpha_factor * sum(learning_rate(options, step) for step in range(options.steps))

    assert distance(scale) == pytest.approx(distance("paper"), rel=0.02)
