"""Paths of every file of the workflow, relative to the working directory."""

from pathlib import Path

SHIPPED = Path(__file__).resolve().parent / "shipped" / "config"
"""Configuration inside the package: a link to `config` in a checkout, a copy after installation."""

SNAKEMAKE_TIMESTAMP = ".snakemake_timestamp"
"""File that Snakemake leaves in every folder that a rule makes."""


def config() -> Path:
    """Folder of the configuration: `config` in the working directory if it exists, else the package's."""
    here = Path("config")
    return here if (here / "config.yaml").is_file() else SHIPPED


def archives(scale: str, dataset: str) -> Path:
    """Folder of a data set's archives, under their official names."""
    return Path("data") / scale / "archives" / dataset


def data(scale: str) -> Path:
    """Folder of the extracted data sets and their manifests."""
    return Path("data") / scale


def dataset(scale: str, dataset: str) -> Path:
    """Folder of an extracted data set."""
    return data(scale) / dataset


def manifest(scale: str, dataset: str) -> Path:
    """JSON file with counts and checksums of an extracted data set."""
    return data(scale) / f"{dataset}.json"


def weights() -> Path:
    """Folder of the authors' released checkpoints, the same for every scale."""
    return Path("data") / "weights"


def runs(scale: str) -> Path:
    """Folder of all runs of a scale."""
    return Path("runs") / scale


def run(scale: str, row: str, seed: int | str) -> Path:
    """Folder of one trained system: weights, training log, manifest.json."""
    return runs(scale) / row / f"seed{seed}"


def prediction(scale: str, row: str, seed: int | str, benchmark: str) -> Path:
    """Folder of one system on one benchmark: masks/, masks.json, segment.json and the scores."""
    return run(scale, row, seed) / benchmark


def submission(scale: str, row: str, seed: int | str, benchmark: str) -> Path:
    """Zip of masks for a benchmark's server."""
    return results(scale) / "submissions" / row / f"seed{seed}" / f"{benchmark}.zip"


def stamps(scale: str) -> Path:
    """Folder of the stamps of a scale."""
    return runs(scale) / "stamps"


def stamp(scale: str, name: str, digest: str) -> Path:
    """Stamp of one step, such as `train-hodor-soft-coco-seed0`, with the digest of its content."""
    return stamps(scale) / f"{name}-{digest[:12]}.json"


def present(scale: str) -> Path:
    """JSON file with the digests of the stamps of the last run that was started."""
    return stamps(scale) / "present.json"


def published(scale: str, name: str) -> Path:
    """JSON file that changes when the copies in results/ or reports/ differ from this scale's files."""
    return stamps(scale) / f"published-{name}.json"


def fetched(scale: str, dataset: str) -> Path:
    """JSON file that lists a data set's archives, written when all of them are complete."""
    return archives(scale, dataset) / "archives.json"


def locks(edition: str) -> Path:
    """JSON file with checksums recorded at the first download, for archives without a published one."""
    return Path("config") / "locks" / f"{edition}.json"


def released(weight_set: str) -> Path:
    """Folder of the authors' checkpoints of one release, under the names of config/datasets.csv."""
    return Path("data") / "weights" / weight_set


def log(scale: str, name: str) -> Path:
    """Output of a step."""
    return runs(scale) / "logs" / f"{name}.log"


def results(scale: str | None = None) -> Path:
    """Folder of the tables of a scale; without `scale`, of the copies of the configured one."""
    return Path("results") / scale if scale else Path("results")


def reports(scale: str | None = None) -> Path:
    """Folder of the report pages of a scale; without `scale`, of the copies of the configured one."""
    return Path("reports") / scale if scale else Path("reports")
