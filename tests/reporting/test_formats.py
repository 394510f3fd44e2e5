"""Tables in LaTeX and Markdown are well formed, whatever their texts hold."""

import re

import pytest

from hodor.reporting.formats import latex_text, markdown_text
from hodor.reporting.tables import TABLES
from tests.reporting.conftest import OUT, make, markdown

COMMANDS = {
    *("begin", "end", "centering", "small", "caption", "label", "toprule", "midrule", "bottomrule"),
    *("pm", "textless", "textgreater", "textbackslash", "textasciitilde", "textasciicircum"),
    *("par", "smallskip", "footnotesize"),
}


def latex(table: str) -> list[list[list[str]]]:
    """The cells of every tabular of a file, the head first; fails on what LaTeX would refuse."""
    text = (OUT / f"{table}_table.tex").read_text()
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert set(re.findall(r"\\([a-zA-Z]+)", body)) <= COMMANDS
    assert set(re.findall(r"\\([^a-zA-Z])", body)) <= set("&%$#_{}\\")
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{([^}]+)\}", body):
        opened.append(name) if kind == "begin" else opened.remove(name)
    assert not opened
    bare = re.sub(r"\\[{}]", "", body)
    assert bare.count("{") == bare.count("}") and not re.search(r"(?<!\\)[%#~^]", body)
    found = []
    for columns, rows in re.findall(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}\n(.*?)\\end\{tabular\}", body, re.DOTALL):
        assert re.fullmatch(r"\\toprule\n.*\\\\\n\\midrule\n(.*\\\\\n)+\\bottomrule\n", rows)
        lines = [line.removesuffix(r"\\").strip() for line in rows.splitlines() if line.endswith(r"\\")]
        found.append([re.split(r"(?<!\\) & ", line) for line in lines])
        assert {len(row) for row in found[-1]} == {len(columns)}
        assert not [line for line in lines if re.match(r"[\[*]", line)]
    return found


@pytest.mark.parametrize("table", list(TABLES))
def test_latex_is_well_formed_and_holds_what_markdown_holds(tabulated, table):
    found = latex(table)
    assert found == [[[latex_text(cell) for cell in row] for row in markdown(table, part)] for part in (0, 1)]
    text = (OUT / f"{table}_table.tex").read_text()
    assert f"\\label{{tab:tiny-{table}}}" in text and text.startswith("% needs: \\usepackage{booktabs}\n")
    # The meaning of the numbers cannot be cut off from them.
    caption = re.search(r"\\caption\{(.*)\}", text).group(1)
    assert "say nothing about the paper's numbers." in caption and "n = 1" in caption


def test_special_characters_of_labels_and_notes_are_shown_as_they_are(project):
    label = r"[A] 100 % of B&C_d #1 {x} $y$ ~z^2 \w <v>"
    project.rows["hodor-none-coco"] |= {"label": label, "note": "two\nlines* | <script>x</script> [a](http://b) &lt;"}
    make(project)
    head, row, *_ = latex("ablation")[0]
    assert row[0] == (
        r"{[}A] 100 \% of B\&C\_d \#1 \{x\} \$y\$ \textasciitilde{}z\textasciicircum{}2 \textbackslash{}w "
        r"\textless{}v\textgreater{}"
    )
    assert row[-1].startswith("two lines{*}") and r"J\&F" in head
    text = (OUT / "ablation_table.md").read_text()
    assert "<" not in text and "](" not in text
    assert markdown("ablation")[1][0] == label.replace("<v>", "&lt;v&gt;")
    assert markdown("ablation")[1][-1] == r"two lines* \| &lt;script&gt;x&lt;/script&gt; [a]\(http://b) &amp;lt;"
    assert markdown_text("J&F") == "J&F"
