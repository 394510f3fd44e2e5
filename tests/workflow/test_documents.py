"""Commands of the documents: the tutorials run at scale tiny; Snakemake's of every page are at least dry runs."""

import re
import shutil

import pytest

from tests.test_repository import commands
from tests.workflow.test_extending import add, enter, recipes  # noqa: F401

pytestmark = pytest.mark.long


def test_the_tutorials_run(checkout, recipes, root):  # noqa: F811
    page = (root / "docs/tutorials.md").read_text(encoding="utf-8")
    shutil.copytree(root / "examples", checkout.path / "examples")
    add(checkout, recipes, "hodor/models/prototypes.py", "prototypes")
    enter(checkout, recipes, "METHODS")
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        block = block.replace("mini", "tiny").replace("--steps 200", "--steps 3")
        # No network; paper scale is planned.
        block = re.sub(r"^hodor fetch .*\n|(?<=^snakemake )--cores all(?=.*scale=paper)", "", block, flags=re.MULTILINE)
        block = re.sub("^snakemake (?=.*scale=paper)", "snakemake -n ", block, flags=re.MULTILINE)
        block = re.sub("^hodor ", "python -m hodor ", block, flags=re.MULTILINE)  # that of the checkout
        # `hodor doctor` has status 1, because the data of scale paper are not here.
        block = re.sub("^(python -m hodor doctor [^#\n]*).*", r"\1 || [ $? -eq 1 ]", block, flags=re.MULTILINE)
        if kind == "yaml":
            (checkout.path / "config/own_datasets.yaml").write_text(block)
        else:
            checkout.run(*(("python", "-c") if kind == "python" else ("bash", "-eu", "-c")), block)
    assert (checkout.path / "my-masks/overlay.mp4").is_file()
    assert "val-001" in (checkout.path / "my-scores/per_object.csv").read_text()
    assert "Prototypes" in (checkout.path / "results/extended_table.md").read_text()


def test_snakemake_accepts_the_commands_of_every_page(checkout, recipes, root):  # noqa: F811
    add(checkout, recipes, "hodor/models/prototypes.py", "prototypes")
    enter(checkout, recipes, "METHODS")
    mirror = str(checkout.path / "data/tiny/archives")
    run = []
    for page, words in commands(root):
        # Profiles are tests/cluster's; --touch and variables of a shell, tests/workflow/test_paper_scale.py's.
        if words[0] == "snakemake" and not {"--workflow-profile", "--touch"} & {*words} and "$" not in "".join(words):
            print(page, *words)
            run.append(checkout.dry_run(*(word.replace("FOLDER", mirror).replace("DIR", mirror) for word in words[1:])))
    assert len(run) > 10
