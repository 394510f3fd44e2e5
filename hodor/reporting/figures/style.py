"""What all figures share: colours that the colour-blind can tell apart, fonts, and files without a date in them."""

import io
from collections.abc import Iterable

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008). Attention -> colour, line style, marker.
ATTENTION_STYLE = {
    "none": ("#D55E00", (0, (1, 1.2)), "o"),
    "hard": ("#009E73", (0, (5, 2)), "s"),
    "soft": ("#0072B2", "-", "D"),
}
# Methods without such attention, in the order in which a panel shows them.
OTHER_STYLES = (
    ("#555555", (0, (8, 2)), "^"),
    ("#CC79A7", (0, (4, 1.5, 1, 1.5)), "v"),
    ("#E69F00", (0, (3, 3)), "P"),
    ("#56B4E9", (0, (4, 1.5, 1, 1.5, 1, 1.5)), "X"),
    ("#000000", (0, (1, 3)), "*"),
)
GREY = "#888888"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    # The same ids in each SVG; text as paths there, as letters that can be searched in PDF.
    "svg.hashsalt": "hodor",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
_DPI = 150


def styles(systems: Iterable[tuple[str, str | None]]) -> dict[str, tuple]:
    """Label -> (colour, line style, marker) of systems (label, attention or None) that share a panel."""
    chosen: dict[str, tuple] = {}
    others = 0
    for label, attention in systems:
        if label in chosen:
            continue
        if attention in ATTENTION_STYLE:
            chosen[label] = ATTENTION_STYLE[attention]
        else:
            chosen[label] = OTHER_STYLES[others % len(OTHER_STYLES)]
            others += 1
    return chosen


def figure_bytes(figure: Figure, format: str) -> bytes:
    """The figure as a file; the same figure gives the same bytes, on any day and in any process.

    Args:
        format: "pdf", "svg", "png" or "jpeg" (for photographs: a tenth of the size).
    """
    # What a writer would add by itself: date, program, version.
    fixed = {
        "pdf": {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}},
        "svg": {"metadata": {"Date": None, "Creator": None}},
        "png": {"metadata": {"Software": None}},
        "jpeg": {"pil_kwargs": {"quality": 88, "subsampling": 0}},
    }[format]
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=format, dpi=_DPI, **fixed)
    return buffer.getvalue()
