"""What the Snakefile calls besides rules: marks of published copies; and how rules call the shell."""

import re
from pathlib import Path

import pytest

from hodor.config.execution import Execution
from hodor.workflow import mark_published


def test_the_mark_changes_when_a_copy_differs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources, copies = tmp_path / "mini", tmp_path / "copies"
    for folder in (sources, copies):
        (folder / "figures").mkdir(parents=True)
        (folder / "table.csv").write_text("1")
        (folder / "figures" / "a.png").write_text("2")
    pairs = {sources / name: copies / name for name in ("table.csv", "figures", "absent.csv")}
    marker = mark_published("mini", "pages", pairs)
    first = marker.read_text()
    assert mark_published("mini", "pages", pairs) == marker and marker.read_text() == first
    for name in ("table.csv", "figures/a.png", "table.csv"):  # the same edit again is a change too
        (copies / name).write_text("edited")
        mark_published("mini", "pages", pairs)
        edited = marker.read_text()
        assert edited != first and name in edited
        (copies / name).write_text((sources / name).read_text())
        mark_published("mini", "pages", pairs)
        assert marker.read_text() == edited, "equal copies need no change"
        first = edited
    (copies / "figures" / "a.png").unlink()
    mark_published("mini", "pages", pairs)
    assert marker.read_text() != edited
    (sources / "table.csv").unlink()
    mark_published("mini", "pages", pairs)
    assert str(copies / "table.csv") in marker.read_text()
    edited = marker.read_text()
    monkeypatch.setattr("sys.argv", ["snakemake", "--mode", "subprocess"])
    (copies / "table.csv").write_text("half a")
    mark_published("mini", "pages", pairs)
    assert marker.read_text() == edited, "a job sees what another one is copying"


@pytest.mark.parametrize(
    ("path", "category"),
    [
        ("ablation_table.csv", "Tables"),
        ("claims.md", "Claims"),
        ("figures", "Figures"),
        ("qualitative.html", "Notebooks"),
        ("index.html", None),
        ("claims.json", None),
    ],
)
def test_what_snakemakes_report_shows(root, path, category):
    """`snakemake --report` itself is a test that takes long."""
    rules = root / "workflow/rules"
    names = {"report": lambda path, **about: about, "directory": lambda path: path}
    names |= {"NOTEBOOKS": ("ablation", "comparison", "qualitative"), "PAGE_FOLDERS": ["figures", "runs"]}
    exec((rules / "common.smk").read_text(), names)
    found = names["shown"](Path(path))
    assert (found["category"] if isinstance(found, dict) else None) == category
    assert category is None or (rules / found["caption"]).is_file()
    outputs = re.findall(r"^ *output:\n((?: {8,}.*\n)+)", (rules / "report.smk").read_text(), re.MULTILINE)
    assert ["shown(" in output for output in outputs] == [True, True, False], "all but the copies"


def test_values_in_shell_commands_are_quoted(root):
    rules = "".join(path.read_text() for path in (root / "workflow/rules").glob("*.smk"))
    unquoted = set(re.findall(r"\{((?:wildcards|input|output|params|log)\b[^{}:]*)\}", rules))
    assert unquoted == {"params.execution"}  # several words
    given = Execution(processes=2, micro_batch=3, compile=True, deterministic=True).arguments()
    assert re.fullmatch("( --[a-z-]+( [0-9]+)?)+", given)
    commands = re.findall(r"\$\{key\}.?", (root / "dvc.yaml").read_text().partition("cmd: >-")[2].partition("deps:")[0])
    assert set(commands) == {"${key}'"}
