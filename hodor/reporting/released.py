"""Numbers of the authors' released weights: results/<scale>/released_weights.csv, which is there where they were scored."""

import csv
from pathlib import Path

from hodor.errors import HodorError

FILE = "released_weights.csv"
ABSENT = "absent"


def read_released(results: Path) -> dict[tuple[str, str], str]:
    """(row, benchmark) -> the value in points, or words where there is none; empty without the file.

    Raises:
        HodorError: a file without the columns row, benchmark, value.
    """
    path = Path(results) / FILE
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
    except FileNotFoundError:
        return {}
    try:
        return {(line["row"], line["benchmark"]): line["value"] for line in lines}
    except KeyError as error:
        raise HodorError(f"{path}: no column {error.args[0]}; delete the file and run the workflow again") from None
