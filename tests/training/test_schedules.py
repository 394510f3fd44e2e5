"""Learning rate by step."""

import pytest
from pydantic import ValidationError

from hodor.config.loading import load
from hodor.config.stages import StageOptions
from hodor.training.optim import learning_rate

BASE = {
    "kind": "images",
    "sources": [{"dataset": "coco", "split": "train2017"}],
    "steps": 100,
    "batch": 1,
    "learning_rate": 1e-3,
    "pixels": 4096,
}


def test_published_image_schedule():
    """Warm-up from 1e-7 to 1e-4 over 10,000 steps, a tenth from step 100,000 on (specification section 5.3)."""
    options = StageOptions(
        **BASE
        | {
            "steps": 250_000,
            "learning_rate": 1e-4,
            "warmup_steps": 10_000,
            "warmup_start": 1e-7,
            "schedule": "step",
            "decay_steps": [100_000],
        }
    )
    assert learning_rate(options, 0) == pytest.approx(1e-7, rel=0.2)
    assert learning_rate(options, 4_999) == pytest.approx(5.005e-5)
    assert learning_rate(options, 9_999) == learning_rate(options, 99_999) == 1e-4
    assert learning_rate(options, 100_000) == learning_rate(options, 249_999) == pytest.approx(1e-5)


def test_cosine_ends_near_zero_and_constant_stays():
    cosine = StageOptions(**BASE | {"schedule": "cosine"})
    assert learning_rate(cosine, 0) == 1e-3 and learning_rate(cosine, 50) == pytest.approx(5e-4)
    assert 0 < learning_rate(cosine, 99) < 1e-6
    assert learning_rate(StageOptions(**BASE), 99) == 1e-3


def test_hodor_visits_three_frames():
    for frames in (2, 4):
        with pytest.raises(ValidationError, match="frames: 3"):
            StageOptions(**BASE | {"frames": frames})


def test_one_size_rule():
    for wrong in ({"short_side": 64}, {"pixels": None}):
        with pytest.raises(ValidationError, match="exactly one of"):
            StageOptions(**BASE | wrong)


@pytest.mark.parametrize("stage", ["images", "cyclic", "dense"])
@pytest.mark.parametrize("scale", ["mini", "subset"])
def test_alpha_can_move_as_far_as_in_the_published_schedule(stage, scale, root):
    def distance(name: str) -> float:
        options = load(root / "config", {"scale": name}).scale.stages[stage]
        return options.alpha_factor * sum(learning_rate(options, step) for step in range(options.steps))

    assert distance(scale) == pytest.approx(distance("paper"), rel=0.02)
