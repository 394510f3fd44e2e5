"""Checkpoints in the form of the Hugging Face Hub: a folder with model.safetensors, config.json and a model card.

`config.json` repeats the method and options in the metadata of `model.safetensors`, from which the network is built, and
adds the inference settings and the precision. The card, `README.md`, is written from the manifest of the run.
"""

import csv
import json
import re
import shutil
from pathlib import Path

from jinja2 import StrictUndefined, Template

from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.config.datasets import read_table
from hodor.config.loading import load
from hodor.data.files import put_in_place
from hodor.errors import HodorError
from hodor.inference.weights import CONFIG, MODEL, Loaded
from hodor.models.base import read_weights, write_weights
from hodor.models.checkpoints.load import ENDINGS
from hodor.provenance import read_json, scored_benchmarks, sha256_file, write_json_atomic, write_text_atomic

CARD, MANIFEST = "README.md", "manifest.json"
SHIPPED = paths.SHIPPED.parent
"""Folder of the checkpoints in the package, one folder each."""


def find_pretrained(name: str | Path | None = None, revision: str | None = None) -> Path:
    """Return the path of a checkpoint, for `open_weights`.

    Args:
        name: a path; the name of a checkpoint in the package; or `owner/name` on the Hugging Face Hub, which is downloaded to
            the Hub's cache. None: the checkpoint in the package, the first by name if there are several.
        revision: branch, tag or commit on the Hub.

    Raises:
        HodorError: no checkpoint in the package, or the Hub cannot be asked or has no such name.
    """
    shipped = {file.parent.name: file.parent for file in sorted(SHIPPED.glob(f"*/{MODEL}"))}
    if name is None:
        if not shipped:
            raise HodorError(
                "this version ships no checkpoint; name weights: --weights PATH, in Python Tracker.from_pretrained(PATH)"
            )
        return next(iter(shipped.values()))
    path, text = Path(name), str(name)
    if not path.exists() and text in shipped:
        return shipped[text]
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", text) and path.suffix not in (*ENDINGS, ".safetensors")
    if path.exists() or path.parent.is_dir() or not on_hub:
        return path
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise HodorError(
            f"{name}: no such file or folder; if it is a name on the Hugging Face Hub, run pip install 'hodor-repro[hub]'"
        ) from error
    try:
        return Path(snapshot_download(text, revision=revision, allow_patterns=[MODEL, CONFIG, CARD]))
    except Exception as error:  # of several libraries: no network, no such name, no permission
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise HodorError(
            f"{name}: neither a file or folder here nor available from the Hugging Face Hub ({reason}); check the name"
        ) from error


def save_pretrained(loaded: Loaded, folder: str | Path, *, half: bool = False) -> None:
    """Write `model.safetensors` (a copy), `config.json` and the model card to a folder, which appears complete or not at all.

    Args:
        loaded: weights of a run with a manifest, or of a folder that this function wrote.
        folder: folder that is absent or empty.
        half: store the weights rounded to float16, in half the size; they are float32 again when loaded.

    Raises:
        HodorError: another folder, no manifest beside the weights, one of other weights, or weights beyond float16.
    """
    folder, run = Path(folder).absolute(), loaded.file.parent
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HodorError(f"{folder}: exists; use a folder that is absent or empty")
    if loaded.file.name != MODEL:
        raise HodorError(
            f"{loaded.file}: not the {MODEL} of a run; make the checkpoint a row of config/rows.yaml first"
        )
    card = run / CARD
    text = card.read_text(encoding="utf-8") if (run / CONFIG).is_file() and card.is_file() else model_card(loaded)
    weights, metadata = read_weights(loaded.file)
    network = json.loads(metadata["model"])
    if half:
        weights = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
        if large := [name for name, value in weights.items() if not value.isfinite().all()]:
            raise HodorError(
                f"{loaded.file}: {large[0]} is beyond the range of float16; write the folder without --half"
            )
        stored = "- Stored as float16, so that the digest of this file is another one; scores are of float32 weights\n"
        text = text.removesuffix(stored) + stored
    inference = loaded.method.inference.model_dump(mode="json")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    if half:
        write_weights(part / MODEL, weights, "model", network)
    else:
        shutil.copyfile(loaded.file, part / MODEL)
    write_json_atomic(part / CONFIG, network | {"inference": inference, "precision": loaded.precision})
    write_text_atomic(part / CARD, text)
    put_in_place(part, folder)


def model_card(loaded: Loaded) -> str:
    """Return the model card of a run, from its manifest, its scores and the configuration of its scale.

    Raises:
        HodorError: no manifest, one of other weights, or a row that is not in the configuration or trains on other data there.
    """
    run = loaded.file.parent
    if not (run / MANIFEST).is_file():
        raise HodorError(
            f"{run / MANIFEST}: no such file, and the model card is written from it; run hodor manifest ROW"
        )
    manifest = read_json(run / MANIFEST)
    if manifest["model"] != sha256_file(loaded.file):
        raise HodorError(f"{run / MANIFEST}: not of these weights; run hodor manifest {manifest['row']} again")
    config = load(paths.config(), {"scale": manifest["scale"], "rows": "all"})
    row, edition = manifest["row"], config.scale.edition
    if row not in config.rows:
        raise HodorError(f"{config.folder / 'rows.yaml'}: has no row {row}, of which {run} is; add it again")
    stage, trained = config.stage(row), manifest["config"]["train"]["settings"].get("stage")
    if stage and trained and stage.model_dump(mode="json")["sources"] != trained["sources"]:
        raise HodorError(
            f"{run}: trained on other data than scale {manifest['scale']} uses here (overrides, or an optional data set that "
            "is not here); run this where it was trained"
        )
    names = dict.fromkeys(name for of in config.lineage(row) for name in config.datasets(of))
    sources = {
        source.dataset: source for source in read_table(config.folder / "datasets.csv") if source.edition == edition
    }
    template = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
    return Template(
        template, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    ).render(
        manifest=manifest,
        loaded=loaded,
        entry=config.rows[row],
        scale=config.scale,
        trained_on=config.trained_on(row),
        stage=stage,
        data={name: sources.get(name) for name in names},
        scores=[_scores(run / benchmark) for benchmark in scored_benchmarks(run)],
    )


def _scores(folder: Path) -> dict[str, str | int]:
    """Return title, size, and J&F or G in points of a scored benchmark; a server has the scores of secret ground truth."""
    benchmark, score = get_benchmark(folder.name), read_json(folder / "score.json")
    column = "G" if benchmark.metric == "G" else "J&F-Mean"
    try:
        with open(folder / "global.csv", encoding="utf-8", newline="") as file:
            points = [f"{100 * float(line[column]):.1f}" for line in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise HodorError(f"{folder / 'global.csv'}: cannot be read ({error}); score again") from error
    value = points[0] if points else "scored by a server"
    return {
        "title": benchmark.title,
        "metric": benchmark.metric,
        "value": value,
        "sequences": score.get("sequences", ""),
    }
