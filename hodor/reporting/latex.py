r"""A table as LaTeX (booktabs), from the same view as Markdown and HTML: for `\input` into a paper."""

from collections.abc import Iterable, Sequence

from hodor.reporting import readable
from hodor.reporting.views import table_view
from hodor.reporting.words import scale_statement

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    # After the end of a row both would be taken for an argument of it.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
}


def table_file(
    settings: dict, table: str, lines: Sequence[readable.Line], provenance: Iterable[tuple[str, str]]
) -> str:
    """The file of one table: its numbers, and the paper's in a table of their own unless at its scale.

    Args:
        settings: those of the table's stamp.
        table: "ablation", "comparison" or "extended".
        lines: the table's lines.
        provenance: (what, value) pairs, which become comments.
    """
    view = table_view(table, lines, beside=settings["scale"] == "paper")
    caption = f"{readable.TITLES[table]}: {settings['title']}. {scale_statement(settings)} {view.about}"
    parts = [
        _comment(f"{what}: {value}" for what, value in [("needs", r"\usepackage{booktabs}"), *provenance]),
        _table(view.measured, caption, f"tab:{settings['scale']}-{table}"),
    ]
    if view.apart:
        about = f"{view.apart_title}. {view.apart_about}"
        parts.append(_table(view.apart, about, f"tab:{settings['scale']}-{table}-paper"))
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands, in one line."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def _table(grid: readable.Grid, caption: str, label: str) -> str:
    columns = "".join("r" if readable.is_number(column) else "l" for column in grid.head)
    rows = ["  " + " & ".join(map(escape, row)) + r" \\" for row in [grid.head, *grid.rows]]
    return "\n".join(
        [
            r"\begin{table*}",
            r"  \centering\small",
            rf"  \caption{{{escape(caption)}}}",
            rf"  \label{{{label}}}",
            rf"  \begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"  \toprule",
            rows[0],
            r"  \midrule",
            *rows[1:],
            r"  \bottomrule",
            r"  \end{tabular}",
            r"\end{table*}",
        ]
    )


def _comment(lines: Iterable[str]) -> str:
    return "\n".join("% " + " ".join(line.split()) for line in lines)
