"""The tables as LaTeX: what LaTeX would refuse, and the same numbers as in Markdown."""

import re
from pathlib import Path

import pytest

from hodor.reporting.latex import escape, table_file

OUT = Path("results/tiny")
COMMANDS = {
    *("begin", "end", "centering", "small", "caption", "label", "toprule", "midrule", "bottomrule"),
    *("pm", "textless", "textgreater", "textbackslash", "textasciitilde", "textasciicircum"),
}


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every tabular of a file, the head first; fails on what LaTeX would refuse."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    assert set(re.findall(r"\\([a-zA-Z]+)", body)) <= COMMANDS
    assert set(re.findall(r"\\([^a-zA-Z])", body)) <= set("&%$#_{}\\")
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{([^}]+)\}", body):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    bare = re.sub(r"\\[{}]", "", body)
    assert bare.count("{") == bare.count("}")
    # Outside of rows of a table no character is special that is not escaped.
    assert not re.search(r"(?<!\\)[%#~^]", body)
    found = []
    for columns, rows in re.findall(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}\n(.*?)\\end\{tabular\}", body, re.DOTALL):
        assert re.fullmatch(r"\s*\\toprule\n.*\\\\\n\s*\\midrule\n(.*\\\\\n)+\s*\\bottomrule\n\s*", rows)
        lines = [line.strip() for line in rows.splitlines() if line.strip().endswith(r"\\")]
        cells = [re.split(r"(?<!\\) & ", line.removesuffix(r"\\").strip()) for line in lines]
        assert {len(row) for row in cells} == {len(columns)}
        assert not [line for line in lines if re.match(r"[\[*]", line)]
        found.append(cells)
    return found


def markdown(text: str) -> list[list[list[str]]]:
    """The cells of every table of a Markdown page, as LaTeX would have them."""
    found: list[list[list[str]]] = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [line[2:-2].split(" | ") for line in block.splitlines()]
        found.append([[escape(cell) for cell in row] for row in (rows[0], *rows[2:])])
    return found


@pytest.mark.parametrize("table", ["ablation", "comparison", "extended"])
def test_a_table_is_well_formed_and_holds_what_markdown_holds(project, table):
    project.tabulate(OUT)
    text = (OUT / f"{table}_table.tex").read_text()
    found = tables(text)
    assert found == markdown((OUT / f"{table}_table.md").read_text()) and len(found) == 2
    assert f"\\label{{tab:tiny-{table}}}" in text and text.startswith("% needs: \\usepackage{booktabs}\n")
    assert "% seeds: 0\n" in text and "% intervals: 95 %, percentile" in text
    # What the numbers mean cannot be cut off from them.
    caption = re.search(r"\\caption\{(.*)\}", text).group(1)
    assert "These numbers say nothing about the paper's numbers." in caption and "n = 1" in caption


def test_special_characters_of_labels_and_notes_are_printed(project):
    project.rows["hodor-none-coco"] |= {
        "label": r"[A] 100 % of B&C_d #1 {x} $y$ ~z^2 \w <v>",
        "note": "two\nlines*",
    }
    project.tabulate(OUT)
    (head, *rows), _ = tables((OUT / "ablation_table.tex").read_text())
    assert rows[0][0] == (
        r"{[}A] 100 \% of B\&C\_d \#1 \{x\} \$y\$ \textasciitilde{}z\textasciicircum{}2 \textbackslash{}w "
        r"\textless{}v\textgreater{}"
    )
    assert rows[0][-1] == "two lines{*}" and r"J\&F" in head


def test_at_the_scale_of_the_paper_its_numbers_stand_beside(project):
    project.tabulate(OUT)
    settings = project.settings() | {"scale": "paper"}
    lines = [
        {"row": "a", "label": "A", "training_data": "COCO", "attention": "soft", "benchmark": "davis2017-val", "n": "3"}
        | {"J&F": "77.61", "J&F_std": "0.2", "J&F_low": "75", "J&F_high": "80", "J": "74", "F": "80", "note": ""}
        | {"paper_J&F": "77.5", "parameters": "12345"}
    ]
    ((head, row),) = tables(table_file(settings, "ablation", lines, []))
    assert dict(zip(head, row, strict=True)) == {
        "system": "A",
        "training data": "COCO",
        "attention": "soft",
        r"J\&F": r"77.6 $\pm$ 0.2 {[}75.0, 80.0]",
        r"paper's J\&F": "77.5",
        "n": "3",
        "J": "74.0",
        "F": "80.0",
        "parameters": "12,345",
    }
