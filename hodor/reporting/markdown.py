"""A table as a Markdown page: our numbers, what they mean, and the paper's under a heading of their own."""

from collections.abc import Iterable, Sequence

from hodor.reporting import readable
from hodor.reporting.views import table_view
from hodor.reporting.words import scale_statement


def table_page(
    settings: dict, table: str, lines: Sequence[readable.Line], provenance: Iterable[tuple[str, str]]
) -> str:
    """The page of one table.

    Args:
        settings: those of the table's stamp.
        table: "ablation", "comparison" or "extended".
        lines: the table's lines.
        provenance: (what, value) pairs for the foot.
    """
    view = table_view(table, lines, beside=settings["scale"] == "paper")
    parts = [
        f"# {readable.TITLES[table]}: {settings['title']}",
        f"**{scale_statement(settings)}**",
        view.about,
        markdown_table(view.measured),
    ]
    if view.apart:
        parts += [f"## {view.apart_title}", view.apart_about, markdown_table(view.apart)]
    manifests = [f"- {line['row']}: `{path}`" for line in lines for path in line["manifest"].split()]
    parts += [
        "## Where the numbers come from",
        "\n".join(f"- {what}: {value}" for what, value in provenance),
        "Each run's settings, data and cost:" if manifests else "",
        "\n".join(dict.fromkeys(manifests)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(grid: readable.Grid) -> str:
    """A table of text; columns of numbers stand to the right."""
    rule = ["---:" if readable.is_number(column) else "---" for column in grid.head]
    cells = [grid.head, rule, *([cell.replace("|", "\\|") for cell in row] for row in grid.rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)
