"""What runs again after a change: exactly what depends on it. Tests count the jobs of `snakemake -n`."""

import re
import shutil
from collections.abc import Collection

import pytest

from hodor.config.benchmarks import get_benchmark
from hodor.config.schema import TABLES
from tests.checkouts import ROWS, planned

SHOWN = {"render": 1, "publish_pages": 1}
COSTS = {"tabulate_costs": 1, "publish_costs": 1}
CLAIMS = {"claims": 1, "publish_claims": 1}


@pytest.fixture(scope="module")
def one_copy(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("changes") / "checkout"
    shutil.copytree(finished.path, folder, symlinks=True)
    return type(finished)(folder)


@pytest.fixture
def edited(one_copy):
    """A finished checkout whose sources a test may edit; they are restored. It must run and delete nothing."""
    folders = [one_copy.path / name for name in ("config", "hodor", "workflow")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    sources = {path: path.read_bytes() for path in [*files, one_copy.path / "environment.yml"]}
    yield one_copy
    for path, content in sources.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def made_tables(tables: Collection[str]) -> dict[str, int]:
    return {f"{step}_{table}": 1 for step in ("tabulate", "publish") for table in tables}


def with_tables(checkout, rows: Collection[str]) -> dict[str, int]:
    """The tables that show one of these rows, the costs, the claims about one of them, and the report."""
    config = checkout.config()
    tables = {table for row in rows for table in config.rows[row].tables}
    judged = CLAIMS if config.claims.rows() & set(rows) else {}
    return made_tables(tables) | COSTS | judged | SHOWN


def from_training(checkout, rows: Collection[str]) -> dict[str, int]:
    jobs = dict.fromkeys(("train", "segment", "score", "manifest"), len(rows))
    return jobs | with_tables(checkout, rows)


def wildcards(output: str, rule: str, name: str) -> set[str]:
    """The wildcard of that name of every job of a rule, out of the output of a dry run."""
    jobs = re.findall(rf"^(?:local)?rule {rule}:\n((?:    .*\n)+)", output, re.MULTILINE)
    return {re.search(rf"^    wildcards: .*\b{name}=([^\s,]+)", job, re.MULTILINE)[1] for job in jobs}


def selected(checkout, *stages: str) -> list[str]:
    """The selected rows; of those the ones that train in one of these stages or start from such a row."""
    config = checkout.config()

    def trained(row: str | None) -> set[str | None]:
        return {config.rows[row].stage} | trained(config.rows[row].init) if row else set()

    return [row for row in config.selected if not stages or trained(row) & set(stages)]


def test_settings_of_a_stage_train_its_rows_and_their_children(edited):
    present = edited.path / "runs/tiny/stamps/present.json"
    before = present.read_bytes()
    old = edited.set("scales/tiny", "stages.images.learning_rate", 0.002)
    rows = selected(edited, "images")
    assert {"hodor-soft-coco", "hodor-soft-cyclic"} < set(rows) < set(selected(edited))
    assert edited.due() == from_training(edited, rows)
    assert present.read_bytes() == before, "a dry run is no run of these settings"
    edited.set("scales/tiny", "stages.images.learning_rate", old)
    assert edited.due() == {}, "changed back"


def test_the_label_of_a_row_of_table_2_makes_table_2_alone(edited):
    assert edited.config().rows["stm"].tables == ["comparison"]
    edited.set("rows", "systems.stm.label", "Space-time memory")
    # The costs name no label.
    assert edited.due() == made_tables(["comparison"]) | SHOWN


@pytest.mark.parametrize("table", TABLES)
def test_a_table_waits_for_its_own_rows_alone(fresh, table):
    checkout = fresh()
    target = f"results/{table}_table.csv"
    config = checkout.config()
    shown = [row for row in config.selected if table in config.rows[row].tables]
    trained = {of for row in shown for of in (row, config.rows[row].init) if of}
    datasets = {dataset for row in trained for dataset in config.datasets(row)}
    datasets |= {get_benchmark(benchmark).dataset for benchmark in config.scale.benchmarks}
    output = checkout.dry_run("--", target)
    assert wildcards(output, "train", "row") == trained
    assert planned(output) == {
        "fetch": len(datasets),
        "prepare": len(datasets),
        "train": len(trained),
        "segment": len(shown),
        "score": len(shown),
        "manifest": len(shown),
        **made_tables([table]),
    }
    others = {
        "ablation": {"stm", "kmn", "stcn", "copy-first-mask"},
        "comparison": {"hodor-none-coco", "hodor-hard-cyclic"},
    }
    # Rows that are read in another way need their beginning: stcn, hodor-soft-coco.
    assert not trained & others.get(table, {"hodor-none-coco", "hodor-soft-cyclic", "stm"})
    assert others.get(table, set()) <= set(config.selected)


def test_settings_of_inference_train_nothing(edited):
    edited.set("scales/tiny", "inference.temporal_window", 2)
    jobs = from_training(edited, selected(edited))
    assert edited.due() == {key: count for key, count in jobs.items() if key != "train"}


def test_more_seeds_train_only_these(edited):
    edited.set("config", "seeds", [0, 1])
    assert edited.due() == from_training(edited, selected(edited))


def test_a_new_row_trains_alone(edited):
    new, about = "hodor-soft-also-detached", {"tables": ["comparison"], "label": "HODOR, masks detached"}
    about |= {"method": "hodor", "options": {"attention": "soft", "detach_masks": True}}
    edited.set("rows", f"systems.{new}", about | {"stage": "cyclic", "init": "hodor-soft-coco"})
    assert edited.due("--config", f"rows={','.join([*ROWS, new])}") == from_training(edited, [new])


@pytest.mark.parametrize(
    ("row", "table", "expected"),
    [
        # A selected row comes with its beginning and with nothing else.
        (
            "hodor-soft-cyclic",
            "ablation",
            {"fetch": 3, "prepare": 3, "train": 2, "segment": 1, "score": 1, "manifest": 1},
        ),
        ("hodor-soft-cyclic", "extended", {}),
    ],
)
def test_a_table_is_made_of_the_selected_rows(fresh, row, table, expected):
    due = fresh().due("--config", f"rows={row}", "--", f"results/{table}_table.csv")
    assert due == expected | made_tables([table])


def test_what_changes_no_result_is_no_change(edited):
    """Text of the code, a space in a rule, another mirror or environment, the version of a recipe that no row uses."""
    files = sorted((edited.path / "hodor").rglob("*.py"))
    assert len(files) > 50
    for path in files:
        text = path.read_text().replace('Error(f"', 'Error(f"sorry: ').replace('print(f"', 'print(f"so: ')
        path.write_text(text + "\n\n_another_name = 1  # A comment.\n")
    package = edited.path / "hodor" / "__init__.py"
    package.write_text(re.sub(r'__version__ = ".*"', '__version__ = "9.9"', package.read_text()))
    assert "sorry: " in (edited.path / "hodor/training/trainer.py").read_text()
    edited.edit("workflow/rules/train.smk", '" python -m hodor train ', '" python  -m hodor train ')
    edited.append("environment.yml", "\n# Another environment.\n")
    edited.set("config", "mirror", str(edited.path))
    for recipe in ("convert", "prepare/weights", "score/youtube-vos", "segment/dmn-aoa"):
        raise_version(edited, recipe)
    assert edited.due() == {}


def test_a_notebook_makes_the_report_alone(edited):
    edited.append("workflow/notebooks/qualitative.py", "\nanother_style = 1\n")
    assert edited.due() == SHOWN


def raise_version(checkout, recipe: str) -> None:
    checkout.append("hodor/config/recipes.py", f"\nRECIPES[{recipe!r}] += 1\n")


@pytest.mark.parametrize(
    ("recipe", "method", "without"),
    [
        ("clips", None, ()),
        ("segment/stcn", "stcn", ("train",)),
        ("score/davis", None, ("train", "segment")),
    ],
)
def test_a_raised_version_makes_what_depends_on_it(edited, recipe, method, without):
    config = edited.config()
    rows = [row for row in config.selected if method in (None, *(config.rows[of].method for of in config.lineage(row)))]
    raise_version(edited, recipe)
    output = edited.dry_run()
    expected = from_training(edited, rows)
    assert planned(output) == {rule: count for rule, count in expected.items() if rule not in without}
    assert wildcards(output, "score", "row") == set(rows)


def test_a_raised_version_of_preparing_reaches_what_reads_the_data(edited):
    config = edited.config()
    raise_version(edited, "prepare/youtube-vos")
    readers = [
        row for row in config.selected if any("youtube-vos" in config.datasets(of) for of in config.lineage(row))
    ]
    assert 0 < len(readers) < len(config.selected)
    due = edited.due()
    assert (due["train"], due["segment"], due["prepare"]) == (len(readers), len(readers), 1) and "fetch" not in due


def test_another_rule_of_claims_makes_the_verdicts_alone(edited):
    edited.set("claims", "rule.on_par", 1)
    assert edited.due() == CLAIMS | SHOWN


def test_a_claim_waits_for_its_own_rows_alone(fresh):
    checkout = fresh()
    row = "hodor-soft-coco-alpha0"
    output = checkout.dry_run("--", "results/claims.json")
    assert wildcards(output, "segment", "row") == checkout.config().claims.rows()
    due = checkout.due("--config", f"rows={row}", "--", "results/claims.json")
    # The row that it reads is trained, and it reads that.
    assert due == {"fetch": 2, "prepare": 2, "train": 2, "segment": 1, "score": 1, "manifest": 1} | CLAIMS
    assert checkout.due("--config", "rows=copy-first-mask", "--", "results/claims.json") == CLAIMS


def test_what_is_done_needs_no_data(checkout):
    assert (checkout.path / "data" / "tiny" / "youtube-vos").is_dir()
    shutil.rmtree(checkout.path / "data" / "tiny")
    assert checkout.due() == {}
    # Data that are gone come back for what needs them, and train nothing else.
    checkout.append("workflow/notebooks/qualitative.py", "\nanother_style = 1\n")
    assert checkout.due() == {"fetch": 1, "prepare": 1} | SHOWN
    checkout.set("scales/tiny", "stages.cyclic.learning_rate", 0.0002)
    assert checkout.due() == {"fetch": 2, "prepare": 2} | from_training(checkout, selected(checkout, "cyclic"))


def test_deleted_masks_are_made_again_when_they_are_asked_for(checkout):
    masks = "runs/tiny/hodor-soft-coco/seed0/davis2017-val/masks"
    shutil.rmtree(checkout.path / masks)
    assert checkout.due() == {}
    assert checkout.due("--", masks) == {"segment": 1}
    checkout.append("workflow/notebooks/ablation.py", "\nanother_style = 1\n")
    jobs = from_training(checkout, ["hodor-soft-coco"])
    assert checkout.due() == {key: count for key, count in jobs.items() if key != "train"}


def test_a_deleted_result_is_made_again(checkout):
    run = "runs/tiny/hodor-soft-cyclic/seed0"
    for file, rule in (("davis2017-val/score.json", "score"), ("train.json", "train"), ("model.safetensors", "train")):
        (checkout.path / run / file).unlink()
        assert checkout.due("--", f"{run}/{file}") == {rule: 1}


def test_a_step_that_failed_after_a_change_is_due_again(checkout):
    """Snakemake records the inputs of a failed step too; they are not those of the older scores and tables."""
    table, start = ("--", "results/extended_table.csv"), 'settings = stamp["settings"]'
    checkout.set("scales/tiny", "inference.temporal_window", 2)
    due = checkout.due(*table)
    assert {"segment", "score", "tabulate_extended"} <= due.keys()
    checkout.edit("hodor/inference/segment.py", start, f"raise OSError\n    {start}")
    checkout.snakemake(*table, check=False)
    checkout.edit("hodor/inference/segment.py", f"raise OSError\n    {start}", start)
    assert checkout.due(*table) == due


def test_a_published_table_without_its_source_is_made_again(checkout):
    (checkout.path / "results/tiny/ablation_table.csv").unlink()
    assert checkout.due("--", "results/ablation_table.csv") == made_tables(["ablation"])


def test_the_tables_follow_the_configured_scale(checkout):
    scale = (checkout.path / "config/scales/tiny.yaml").read_text().replace("name: tiny", "name: tiny-two")
    (checkout.path / "config/scales/tiny-two.yaml").write_text(scale)
    table = checkout.path / "results" / "extended_table.csv"
    before = table.read_text()
    two = ["--config", "scale=tiny-two", "rows=copy-first-mask", "--", "results/extended_table.csv"]
    checkout.snakemake(*two)
    assert table.read_text() == (checkout.path / "results/tiny-two/extended_table.csv").read_text() != before
    assert checkout.due(*two) == {}
    # Back again: only copying.
    assert checkout.due() == {"publish_extended": 1}
    checkout.snakemake("--", "results/extended_table.csv")
    assert table.read_text() == before
    assert checkout.due(*two) == {"publish_extended": 1}


def test_an_imported_run_makes_its_tables_and_pages_alone(checkout, tmp_path):
    """Without `--touch`, although the copy has lost the times of its files."""
    row = checkout.path / "runs" / "tiny" / "hodor-soft-coco"
    shutil.copytree(row, tmp_path / row.name, copy_function=shutil.copy)
    shutil.rmtree(row)
    checkout.run("python", "-m", "hodor", "import", str(tmp_path / row.name / "seed0"))
    assert checkout.due() == with_tables(checkout, [row.name])
