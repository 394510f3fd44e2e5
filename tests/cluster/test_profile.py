"""profiles/slurm names rules that there are, and keeps what the workflow needs of any profile."""

import re

import pytest
import yaml

from hodor.config.schema import TABLES


@pytest.fixture(scope="module")
def profile(root) -> dict:
    return yaml.safe_load((root / "profiles" / "slurm" / "config.yaml").read_text())


def test_its_rules_are_the_workflows(root, profile):
    text = "\n".join(path.read_text() for path in (root / "workflow" / "rules").glob("*.smk"))
    rules = set(re.findall(r"^rule (\w+):", text, re.MULTILINE))
    local = set(re.findall(r"^    (\w+),$", "".join(re.findall(r"^localrules:\n(?:    \w+,\n)+", text, re.M)), re.M))
    assert {"fetch", "publish_ablation", "publish_pages"} <= local
    assert {"prepare", "train", "segment"} <= profile["set-resources"].keys() <= rules - local
    copies = {f"publish_{name}" for name in (*TABLES, "costs", "claims", "submissions", "pages")}
    assert local == copies | {"fetch"}, "copies are no jobs"


def test_it_keeps_what_the_records_need(root, profile):
    default = yaml.safe_load((root / "profiles" / "default" / "config.yaml").read_text())
    for key in ("rerun-incomplete", "rerun-triggers"):
        assert profile[key] == default[key]


def test_the_guide_names_every_entry(root, profile):
    guide = (root / "docs" / "cluster.md").read_text()
    missing = [key for key in profile if f"`{key}" not in guide and key not in ("local-cores", "default-resources")]
    assert missing == []
