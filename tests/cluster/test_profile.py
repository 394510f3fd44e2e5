"""profiles/slurm names rules that there are, and keeps what the workflow needs of any profile."""

import re

import pytest
import yaml


@pytest.fixture(scope="module")
def profile(root) -> dict:
    return yaml.safe_load((root / "profiles" / "slurm" / "config.yaml").read_text())


def test_its_rules_are_the_workflows(root, profile):
    text = "\n".join(path.read_text() for path in sorted((root / "workflow" / "rules").glob("*.smk")))
    parts = re.split(r"^ *rule ?(\w*):$", text, flags=re.MULTILINE)
    rules, bodies = parts[1::2], parts[2::2]
    local = [name or re.search(r'f"(.*)"', body)[1] for name, body in zip(rules, bodies) if "localrule: True" in body]
    assert local == ["fetch", "publish_{name}"], "copies are no jobs"
    assert {"prepare", "train", "segment"} <= profile["set-resources"].keys() <= set(rules) - {*local, ""}


def test_it_keeps_what_the_records_need(root, profile):
    default = yaml.safe_load((root / "profiles" / "default" / "config.yaml").read_text())
    for key in ("rerun-incomplete", "rerun-triggers"):
        assert profile[key] == default[key]


def test_the_guide_names_every_entry(root, profile):
    guide = (root / "docs" / "cluster.md").read_text()
    missing = [key for key in profile if f"`{key}" not in guide and key not in ("local-cores", "default-resources")]
    assert missing == []
