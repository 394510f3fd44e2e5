"""The recipes of docs/extending.md, followed to the letter: its files and rows, taken out of the page."""

import csv
import re
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.checkouts import ROWS

BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+(?:, \w+)?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
REGISTRY = "hodor/config/methods.py"


@pytest.fixture(scope="module")
def recipes(root) -> dict[str, str]:
    """Path -> content of each file of the page; the rows, one after another, under config/rows.yaml."""
    out: dict[str, str] = {}
    for path, content in BLOCK.findall((root / "docs" / "extending.md").read_text(encoding="utf-8")):
        out[path] = out.get(path, "") + content
    return out


def rows_of(text: str) -> dict[str, str]:
    """Row -> its entry in config/rows.yaml."""
    return {part.split(":")[0].strip(): part for part in re.split(r"^(?=  \S)", text, flags=re.MULTILINE) if part}


def add(checkout, recipes, path: str, row: str | None = None) -> None:
    target = checkout.path / path
    assert not target.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(recipes[path])
    if row:
        checkout.append("config/rows.yaml", "\n" + rows_of(recipes["config/rows.yaml"])[row])


def enter(checkout, recipes, registry: str) -> None:
    """Adds the page's entry of a registry in hodor/config/methods.py."""
    text = (checkout.path / REGISTRY).read_text()
    (opening,) = re.findall(rf"^{registry}\b.*= {{\n", text, flags=re.MULTILINE)
    checkout.edit(REGISTRY, opening, opening + recipes[f"{REGISTRY}, {registry}"])


def test_the_page_holds_the_recipes(recipes):
    assert set(recipes) == {
        "hodor/models/hodor/multiplied.py",
        f"{REGISTRY}, ATTENTION",
        "hodor/models/prototypes.py",
        f"{REGISTRY}, METHODS",
        "hodor/data/blobs.py",
        "hodor/config/datasets.py",
        "config/rows.yaml",
        "config/scales/<scale>.yaml",
    }
    assert set(rows_of(recipes["config/rows.yaml"])) == {"hodor-multiplied-coco", "prototypes"}


def test_an_attention_variant_and_a_method_are_one_file_one_entry_and_one_row_each(checkout, recipes):
    """They run through the DAG, and nothing that was trained is trained again."""
    rows = ["hodor-multiplied-coco", "prototypes"]
    add(checkout, recipes, "hodor/models/hodor/multiplied.py", rows[0])
    enter(checkout, recipes, "ATTENTION")
    add(checkout, recipes, "hodor/models/prototypes.py", rows[1])
    enter(checkout, recipes, "METHODS")
    table, both = "results/extended_table.csv", f"rows={','.join([*ROWS, *rows])}"
    steps = {"train": 2, "segment": 2, "score": 2, "manifest": 2, "tabulate_extended": 1, "publish_extended": 1}
    assert checkout.due("--config", both, "--", table) == steps
    checkout.snakemake("--config", both, "--", table)
    lines = {line["row"]: line for line in checkout.table(table)}
    for row in rows:
        assert 0 <= float(lines[row]["J&F"]) <= 100 and int(lines[row]["parameters"]) > 1000
    assert lines["hodor-multiplied-coco"]["attention"] == "multiplied"
    # The text of the code is in no stamp.
    checkout.edit("hodor/models/hodor/multiplied.py", "min=1e-6", "min=0.000001")
    assert not checkout.due("--config", both, "--", table)


def test_the_method_of_the_page_passes_the_conformance_test(checkout, recipes, root):
    add(checkout, recipes, "hodor/models/prototypes.py")
    enter(checkout, recipes, "METHODS")
    for name in (
        *("tests/conftest.py", "tests/checkouts.py", "tests/narrow.py", "tests/refused.py", "tests/videos.py"),
        *("tests/models/conftest.py", "tests/models/test_conformance.py"),
    ):
        target = checkout.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((root / name).read_text())
    checkout.edit(
        "tests/models/test_conformance.py",
        '    ("copy", "", {}),\n',
        '    ("copy", "", {}),\n    ("prototypes", "", {}),\n',
    )
    done = checkout.run("python", "-m", "pytest", "-q", "-k", "prototypes or every_method", "tests/models")
    assert re.search(r"\d+ passed", done.stdout) and "failed" not in done.stdout, done.stdout[-3000:]


@pytest.mark.long
def test_a_data_set_is_one_module_one_entry_and_its_lines(checkout, recipes):
    """A row trains on it alone; the archives of scale tiny serve as the mirror of all other data sets."""
    add(checkout, recipes, "hodor/data/blobs.py")
    entry = recipes["hodor/config/datasets.py"].rstrip()
    checkout.edit("hodor/config/datasets.py", "STILL_IMAGES: dict[str, StillImages] = {}", entry)
    mirror = checkout.path / "mirror"
    (checkout.path / "data" / "tiny" / "archives").rename(mirror)
    (mirror / "blobs").mkdir()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(mirror / "blobs" / "blobs.zip", "w") as archive:
        for number in range(8):
            mask = np.zeros((96, 128), np.uint8)
            mask[20:70, 10 * number : 10 * number + 50] = 255
            image = np.where(mask[..., None], 200, rng.integers(0, 100, (96, 128, 3))).astype(np.uint8)
            for folder, name, pixels in (("images", "jpg", image), ("masks", "png", mask)):
                with archive.open(f"{folder}/{number}.{name}", "w") as file:
                    Image.fromarray(pixels).save(file, format={"jpg": "JPEG", "png": "PNG"}[name])

    table = checkout.path / "config" / "datasets.csv"
    with open(table, newline="") as file:
        columns = csv.DictReader(file).fieldnames
    with open(table, "a", newline="") as file:
        line = {"dataset": "blobs", "edition": "subset", "version": "1", "archive": "blobs.zip", "log_in": "no"}
        csv.DictWriter(file, columns, restval="", lineterminator="\n").writerow(line | {"licence": "CC0"})

    scale = yaml.safe_load((checkout.path / "config" / "scales" / "tiny.yaml").read_text())
    recipe = yaml.safe_load(recipes["config/scales/<scale>.yaml"].replace("[..., blobs]", "[blobs]"))
    scale |= {"name": "blobs", "edition": "subset", "datasets": scale["datasets"] + recipe["datasets"]}
    scale.pop("generated")
    scale["stages"]["static-stcn"] |= recipe["stages"]["static-stcn"]
    (checkout.path / "config" / "scales" / "blobs.yaml").write_text(yaml.safe_dump(scale, sort_keys=False))

    settings = ["--config", "scale=blobs", f"mirror={mirror}", "rows=stcn"]
    target = "runs/blobs/stcn/seed0/manifest.json"
    assert checkout.due(*settings, "--", target)["fetch"] == 2, "blobs to train on, DAVIS to be scored on"
    output = checkout.snakemake(*settings, "--", target)
    assert (checkout.path / target).is_file(), output[-2000:]
    manifest = yaml.safe_load((checkout.path / "data" / "blobs" / "blobs.json").read_text())
    assert manifest["splits"] == {"all": {"empty_masks": 0, "images": 8, "objects": 8}}
    # Rows on other data do not ask for it.
    assert "train" not in checkout.due("--", "results/ablation_table.csv")
