"""What a check found: one line each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """The result of one check. `mend`: what to do, for everything but `ok`."""

    level: Level
    subject: str
    text: str
    mend: str = ""

    def line(self) -> str:
        """`wrong    archives davis     DAVIS-...zip has 12 bytes; mend: ...`"""
        return f"{self.level:<8} {self.subject:<28} {self.text}" + (f"; mend: {self.mend}" if self.mend else "")


Findings = Iterator[Finding]
