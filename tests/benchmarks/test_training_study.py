"""Trainings with changed settings: what is changed, and that nothing is computed twice."""

import pytest

from hodor.config.loading import load
from tests.benchmarks.conftest import cells


@pytest.fixture
def run(study, world, monkeypatch, tmp_path):
    """Run the study with two settings at scale tiny; return the cells of its table."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiny").symlink_to(world)
    few, more = study.Setting(2), study.Setting(2, rate=2.0, objects=1)
    monkeypatch.setattr(study, "SETTINGS", {"few": few, "more": more})
    monkeypatch.setattr(study, "OBJECTS", (1,))
    flags = f"--scale tiny --root {tmp_path} --dataset davis --runs {tmp_path / 'runs'} --out {tmp_path}".split()
    monkeypatch.setattr("sys.argv", ["training_study.py", *flags, "--settings", "few", "more", "--threads", "1"])

    def main() -> list[list[str]]:
        study.main()
        return cells(next(tmp_path.glob("tiny_training-study-seed0_*.md")).read_text())

    return main


def test_every_row_is_trained_and_scored_once_with_each_setting(study, run, monkeypatch, tmp_path):
    table = run()
    assert table[0] == ["setting", "row", "1 object"]
    rows = ["hodor-none-coco", "hodor-soft-coco"]
    assert [line[:2] for line in table[2:]] == [[setting, row] for setting in ("few", "more") for row in rows]
    models = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert len(models) == 4
    with monkeypatch.context() as patched:
        patched.setattr(study, "scores_by_number", None)
        assert run() == table
    assert {path: path.stat().st_mtime_ns for path in models} == models


def test_a_run_that_was_trained_anew_is_scored_anew(study, run, monkeypatch, tmp_path):
    run()
    record = next(tmp_path.rglob("train.json"))
    record.write_text(record.read_text().replace('"model": "', '"model": "0'))
    scored = []
    score = study.scores_by_number
    monkeypatch.setattr(study, "scores_by_number", lambda *given: scored.append(given) or score(*given))
    run()
    assert len(scored) == 1


def test_alphas_can_move_equally_far_in_every_setting(study, root):
    config = load(root / "config", {"scale": "subset"})
    reach = []
    for setting in study.SETTINGS.values():
        overrides = setting.overrides(config.scale.stages["images"])
        stage = load(root / "config", {"scale": "subset", "overrides": overrides}).scale.stages["images"]
        reach.append(stage.steps * stage.learning_rate * stage.alpha_factor)
    assert reach == pytest.approx([1100 * 0.001 * 20] * len(reach))
