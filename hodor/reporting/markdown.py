"""A table as a Markdown page: our numbers, what they mean, and the paper's under a heading of their own."""

from collections.abc import Iterable, Sequence

from hodor.reporting import readable
from hodor.reporting.words import scale_statement


def table_page(
    settings: dict, table: str, lines: Sequence[readable.Line], provenance: Iterable[tuple[str, str]]
) -> str:
    """The page of one table.

    Args:
        settings: those of the tables' stamp.
        table: "ablation" or "extended".
        lines: the table's lines.
        provenance: (what, value) pairs for the foot.
    """
    at_paper_scale = settings["scale"] == "paper"
    parts = [
        f"# {readable.TITLES[table]}: {settings['title']}",
        f"**{scale_statement(settings)}**",
        readable.scores_note(lines),
        _table(*readable.measured(lines, beside=at_paper_scale)),
    ]
    head, rows = readable.published(lines)
    if rows and not at_paper_scale:
        parts += [f"## {readable.PUBLISHED_TITLE}", readable.PUBLISHED_NOTE, _table(head, rows)]
    manifests = [f"- {line['row']}: `{path}`" for line in lines for path in line["manifest"].split()]
    parts += [
        "## Where the numbers come from",
        "\n".join(f"- {what}: {value}" for what, value in provenance),
        "Each run's settings, data and cost:" if manifests else "",
        "\n".join(dict.fromkeys(manifests)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---:" if column in readable.NUMERIC else "---" for column in head]
    cells = [head, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)
