"""Stages that are like another one, and overrides that reach them."""

import jsonschema
import pytest
import yaml

from hodor.config import loading as config
from hodor.config.schema import schema
from tests.checkouts import set_yaml
from tests.refused import refused

HOLDOUT = "hodor-soft-cyclic-holdout"


def stages(root, scale, overrides=None):
    return config.load(root / "config", {"scale": scale, "rows": "all", "overrides": overrides or {}}).scale.stages


@pytest.mark.parametrize("scale", ["tiny", "mini", "subset", "paper"])
def test_the_holdout_follows_the_cyclic_stage_but_for_its_videos(root, scale):
    plain = stages(root, scale)
    assert plain["cyclic"].model_copy(update={"sources": plain["cyclic-holdout"].sources}) == plain["cyclic-holdout"]
    found = stages(root, scale, {"stages.cyclic.batch": 3, "stages.cyclic.workers": 2})
    for stage in ("cyclic", "cyclic-holdout"):
        assert (found[stage].batch, found[stage].workers) == (3, 2)
    assert found["dense"] == plain["dense"]
    assert found["cyclic-holdout"].sources == plain["cyclic-holdout"].sources


@pytest.mark.parametrize("scale", ["subset", "paper"])
def test_what_is_set_for_the_holdout_alone_stays_there_and_wins(root, scale):
    plain = stages(root, scale)
    own = {"stages.cyclic-holdout.batch": 2, "stages.cyclic.batch": 3, "stages.cyclic-holdout.steps": 5}
    for overrides in (own, dict(reversed(own.items()))):
        found = stages(root, scale, overrides)
        assert (found["cyclic"].batch, found["cyclic-holdout"].batch) == (3, 2)
        assert (found["cyclic"].steps, found["cyclic-holdout"].steps) == (plain["cyclic"].steps, 5)


def test_a_setting_below_one_that_is_taken_over(folder):
    set_yaml(folder / "scales" / "subset.yaml", "stages.other", {"like": "static-kmn"})
    overrides = {"stages.other.hide_and_seek.ramp": 0.25}
    found = config.load(folder, {"scale": "subset", "overrides": overrides}).scale.stages
    kmn, other = found["static-kmn"].hide_and_seek, found["other"].hide_and_seek
    assert (kmn.grid, kmn.ramp, other.grid, other.ramp) == (12, 0.5, 12, 0.25)


def test_an_alias_of_yaml_is_not_changed_with_its_twin(folder):
    path = folder / "scales" / "mini.yaml"
    content = yaml.safe_load(path.read_text())
    content["stages"]["twin"] = content["stages"]["cyclic"]
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert "&id001" in path.read_text() and "*id001" in path.read_text()
    found = config.load(folder, {"overrides": {"stages.cyclic.steps": 1}}).scale.stages
    assert (found["cyclic"].steps, found["twin"].steps) == (1, config.load(folder).scale.stages["cyclic"].steps)


@pytest.mark.parametrize("other", ["cyclik", "cyclic-holdout", 3, ["cyclic"]])
def test_a_stage_like_none(folder, other):
    set_yaml(folder / "scales" / "mini.yaml", "stages.cyclic-holdout.like", other)
    refused(r"scales/mini\.yaml: stages\.cyclic-holdout\.like: .* is none of images", config.load, folder)


def test_the_schema_knows_such_stages(root):
    content = yaml.safe_load((root / "config" / "scales" / "paper.yaml").read_text())
    whole = schema()
    check = jsonschema.Draft202012Validator({**whole["properties"]["scales/*.yaml"], "$defs": whole["$defs"]})
    assert content["stages"]["cyclic-holdout"]["like"] == "cyclic" and not list(check.iter_errors(content))
    content["stages"]["cyclic-holdout"]["batches"] = 3
    assert list(check.iter_errors(content))
