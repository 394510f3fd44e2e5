"""Strategies for damaged bytes and damaged JSON."""

import copy
import struct
import zlib

from hypothesis import strategies as st

EXTREMES = st.sampled_from(
    [*(None, True, "", "1", "\0", "\ud800", "x" * 300)]
    + [*(0, -1, 0.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**400)]
    + [[], {}, [[]], [None], [0, 0, 0, 0, 0, 0], [1e9] * 6, {"size": [1, 1], "counts": None}]
)
"""Values that a parser takes and a program does not expect."""

_EDITS = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "drop", "repeat", "zero", "ones"]), st.floats(0, 1), st.integers(0, 7)),
    min_size=1,
    max_size=3,
)


@st.composite
def damaged(draw, content: bytes, early: bool = False) -> bytes:
    """Flips bits, cuts, drops, repeats or overwrites bytes; `early`: most of all in the first 200, where headers are."""
    for kind, place, bit in draw(_EDITS):
        reach = min(len(content), 200) if early and bit else len(content)
        at = int(place * max(reach - 1, 0))
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[at + 1 + bit :]
        elif kind == "repeat":
            content = content[: at + 40] + content[at:]
        else:
            content = content[:at] + (b"\0" if kind == "zero" else b"\xff") * (1 + bit) + content[at + 1 + bit :]
    return content


@st.composite
def damaged_json(draw, content):
    """Replaces or deletes one to three values anywhere in a JSON document."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        holder, key = None, None
        inner = content
        while isinstance(inner, dict | list) and inner and (holder is None or draw(st.integers(0, 3))):
            holder, key = inner, draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
            inner = holder[key]
        if holder is not None and draw(st.booleans()):
            holder[key] = copy.deepcopy(draw(EXTREMES))
        elif holder is not None:
            del holder[key]
    return content


def with_checksums(png: bytes) -> bytes:
    """A PNG whose chunks have right checksums, so that a reader goes on behind them."""
    out, position = png[:8], 8
    while position + 12 <= len(png):
        size = int.from_bytes(png[position : position + 4], "big")
        body = png[position + 4 : position + 8 + size]
        out += png[position : position + 4] + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + size
    return out
