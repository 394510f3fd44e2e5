"""Figures by subject. Each function returns a matplotlib Figure, or None without data, and changes no global state.

This module holds what all figures share: colours, line styles, fonts, and reproducible files. No two lines differ by
colour alone; masks have the colours of the DAVIS palette.
"""

import io
from collections.abc import Iterable
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design" (2008). Attention -> colour, line style, marker.
ATTENTION_STYLE: dict[str | None, tuple] = {
    "none": ("#D55E00", (0, (1, 1.2)), "o"),
    "hard": ("#009E73", (0, (5, 2)), "s"),
    "soft": ("#0072B2", "-", "D"),
}
# Styles of other methods, in the order of a panel.
OTHER_STYLES = (
    ("#555555", (0, (8, 2)), "^"),
    ("#CC79A7", (0, (4, 1.5, 1, 1.5)), "v"),
    ("#E69F00", (0, (3, 3)), "P"),
    ("#56B4E9", (0, (4, 1.5, 1, 1.5, 1, 1.5)), "X"),
    ("#000000", (0, (1, 3)), "*"),
)
INK, GREY = "#0072B2", "#888888"
GRID = {"color": "#dddddd", "linewidth": 0.6}
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    # Dollar signs in labels are no formulas.
    "text.parse_math": False,
    # Reproducible ids in SVG; text is paths in SVG and searchable in PDF.
    "svg.hashsalt": "hodor",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}
# Format -> its MIME type, and options that leave out date, program and version.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "pdf": ("application/pdf", {"metadata": {"CreationDate": None, "Creator": None, "Producer": None}}),
    "svg": ("image/svg+xml", {"metadata": {"Date": None, "Creator": None}}),
    "png": ("image/png", {"metadata": {"Software": None}}),
    "jpeg": ("image/jpeg", {"pil_kwargs": {"quality": 88, "subsampling": 0}}),
}
_DPI = 150


def styles(systems: Iterable[tuple[str, str | None]]) -> dict[str, tuple]:
    """Return label -> (colour, line style, marker) of the systems (label, attention or None) in a panel."""
    others = iter(OTHER_STYLES * 10)
    chosen: dict[str, tuple] = {}
    for label, attention in systems:
        if label not in chosen:
            chosen[label] = ATTENTION_STYLE.get(attention) or next(others)
    return chosen


def figure_bytes(figure: Figure, format: str) -> bytes:
    """Return a figure as a file; the same figure gives the same bytes.

    Args:
        figure: the figure.
        format: key of `FORMATS`; "jpeg" for photographs, at a tenth of the size.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=format, dpi=_DPI, **FORMATS[format][1])
    return buffer.getvalue()
