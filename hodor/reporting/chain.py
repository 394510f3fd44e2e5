"""The chain of provenance: does each number come from the weights, data, settings and code that are current?

    stamp of training -> train.json -> model.safetensors -> masks.json -> score.json -> *.csv

Every file names the digests of what it was made from. Snakemake remakes what is out of date by its own books;
this is
the second look, which needs none: a file copied from elsewhere, edited by hand or left over from other
settings is refused before its number reaches a table.
"""

from pathlib import Path

from hodor.errors import HodorError
from hodor.provenance import sha256_file, sha256_json
from hodor.reporting.runs import Run


def verify_run(run: Run, stamps: dict[str, str], command: str, parent: Path | None = None) -> None:
    """Checks one run against the current stamps and against its own files.

    Args:
        run: the run, with the predictions that the tables use.
        stamps: "<row>/seed<k>/<step>" -> sha256 of the current stamp, the steps being `train` and, for each
            benchmark, `<benchmark>/segment` and `<benchmark>/score`.
        command: what makes whatever was deleted, for the message.
        parent: the weights that the training had to start from.

    Raises:
        HodorError: the first link that does not hold: the file, what is wrong with it, the command that mends
            it.
    """
    link = _Link(run, stamps, command)
    weights = run.folder / "model.safetensors"
    trained = run.folder / "train.json"
    model = sha256_file(weights)
    link.stamp(trained, run.train, "train")
    if run.train.get("model") != model:
        raise link.broken(weights, f"not the weights that {trained} names", also=trained)
    if parent is not None and sha256_file(parent) not in run.train.get("inputs", {}).values():
        raise link.broken(trained, f"training did not start from the present {parent}")
    for benchmark, prediction in run.predictions.items():
        masks, score = prediction.folder / "masks.json", prediction.folder / "score.json"
        link.stamp(masks, prediction.masks, f"{benchmark}/segment")
        if prediction.masks.get("weights") != model:
            raise link.broken(masks, f"its masks were not made with {weights}")
        link.stamp(score, prediction.score, f"{benchmark}/score")
        if prediction.score.get("masks") != sha256_file(masks):
            raise link.broken(score, f"these are not the scores of the masks in {masks}")
        if prediction.score.get("truth") is None or prediction.score["truth"] != prediction.masks.get("data"):
            raise link.broken(score, "segmented and scored on different data")
        for name, digest in prediction.score.get("files", {}).items():
            if sha256_file(prediction.folder / name) != digest:
                raise link.broken(prediction.folder / name, f"not the numbers that {score} records", also=score)


def verify_same_truth(runs: list[Run], benchmark: str, command: str) -> None:
    """HodorError if two runs were scored against different data, so that their numbers do not compare."""
    first = None
    for run in (run for run in runs if benchmark in run.predictions):
        score = run.predictions[benchmark].folder / "score.json"
        truth = run.predictions[benchmark].score.get("truth")
        if first is None:
            first = (score, truth)
        elif truth != first[1]:
            raise HodorError(f"{score}: scored against other data than {first[0]}; {mend(command, score)}")


def mend(command: str, *files: Path) -> str:
    """How to make files anew, as the last half of a message."""
    names = " ".join(file.as_posix() for file in files)
    return f"mend it with: rm -f {names} && {command}"


class _Link:
    """Raises errors about one run, and compares stamps."""

    def __init__(self, run: Run, stamps: dict[str, str], command: str):
        self.run, self.stamps, self.command = run, stamps, command

    def stamp(self, path: Path, record: dict, step: str) -> None:
        name = f"{self.run.row}/seed{self.run.seed}/{step}"
        if name not in self.stamps:
            raise HodorError(f"the stamp of the table names no current stamp for {name}: run the workflow again")
        if record.get("stamp") != self.stamps[name]:
            raise self.broken(path, "made with other settings or other code than the current ones")
        content = record.get("stamp_content")
        # Only what the manifest will show as the resolved configuration has to be the stamp's own content.
        if content is not None and _digest(content) != record["stamp"]:
            raise self.broken(path, "the settings in it are not those of its stamp")

    def broken(self, path: Path, what: str, also: Path | None = None) -> HodorError:
        files = [path] if also is None else [path, also]
        return HodorError(f"{path}: {what}; {mend(self.command, *files)}")


def _digest(content: dict) -> str:
    return sha256_json({key: value for key, value in content.items() if key != "sha256"})
