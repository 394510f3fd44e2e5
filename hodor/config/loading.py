"""Read and check the configuration: config.yaml, rows.yaml, claims.yaml and one scales/<scale>.yaml of config/.

The steps of the workflow do not read it. They read stamps (`hodor.stamps`) with the part that they use.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hodor import paths
from hodor.config.benchmarks import HOLDOUT, REST, Benchmark, get_benchmark, is_secret
from hodor.config.claims import Claims, load_claims
from hodor.config.datasets import ARCHIVES, archives
from hodor.config.overrides import apply_overrides
from hodor.config.own_datasets import OWN, OwnDataset, load_own
from hodor.config.rows import check_row, locate_masks, locate_weights, select
from hodor.config.schema import Row, Rows, Scale, Settings
from hodor.config.servers import Server, ServerScore, load_server_scores, load_servers
from hodor.config.stages import InferenceOptions, StageOptions
from hodor.config.validation import none_of, read_yaml, validate
from hodor.errors import HodorError

COMMAND_LINE = "command line"
"""Origin, in errors, of the keys that override those of config.yaml."""


@dataclass(frozen=True)
class Config:
    """The checked configuration.

    Attributes:
        scale: with overrides applied.
        rows: every row.
        selected: ids of the rows that the tables show numbers of, in the order of `rows`. Rows of released weights or
            external masks that are absent are not among them.
        options: row id -> method options; of released weights only those in rows.yaml, because their file has the others.
        claims: claims about the rows.
        mirror: None, a URL or an absolute path.
        servers: secret benchmark -> its server.
        server_scores: scores that servers returned for this scale's masks.
        checkpoints: row of released weights -> its file, for those that are present.
        own: the user's data sets.
        masks: row of external masks -> benchmark of this scale -> their folder or archive; None where it is absent.
    """

    settings: Settings
    scale: Scale
    rows: dict[str, Row]
    selected: tuple[str, ...]
    seeds: tuple[int, ...]
    options: dict[str, dict[str, Any]]
    claims: Claims
    mirror: str | None
    folder: Path
    servers: dict[str, Server]
    server_scores: tuple[ServerScore, ...]
    checkpoints: dict[str, Path]
    masks: dict[str, dict[str, Path | None]]
    own: dict[str, OwnDataset]

    def seeds_of(self, row: str) -> tuple[int, ...]:
        """Return the seeds of a row; released weights and external masks have none, and their run is seed 0."""
        return (0,) if self.rows[row].imported else self.seeds

    def runs(self, rows: Iterable[str]) -> list[tuple[str, int]]:
        """Return row and seed of every run of some rows."""
        return [(row, seed) for row in rows for seed in self.seeds_of(row)]

    def absent_files(self, row: str) -> tuple[str, ...]:
        """Return the absent files of released weights or external masks that a row needs at this scale."""
        entry = self.rows[row]
        if entry.weights:
            return () if row in self.checkpoints else (str(paths.weights() / entry.weights),)
        return tuple(entry.masks[id] for id, path in self.masks.get(row, {}).items() if path is None)

    def require(self, row: str) -> None:
        """Raise HodorError for a row whose released weights or external masks are absent."""
        if row not in self.selected and (absent := self.absent_files(row)):
            raise HodorError(f"{absent[0]}: no such file; {self.how_to_get(row)}")

    def how_to_get(self, row: str) -> str:
        """Return how to get the absent released weights or external masks of a row; an empty text if none is absent."""
        entry, absent = self.rows[row], self.absent_files(row)
        how = f"place the masks in {' and '.join(absent)}"
        if entry.weights:
            how = f"hodor fetch weights, or place {entry.weights} in data/weights/"
        return f"get it by: {how} (from {entry.source})" if absent else ""

    def stage(self, row: str) -> StageOptions | None:
        """Return the training stage of a row; None if it is not trained."""
        name = self.rows[row].stage
        return self.scale.stages[name] if name else None

    def inference(self, row: str, benchmark: str) -> InferenceOptions:
        """Return the inference settings of a row on a benchmark: the scale's with its rules, then the row's own."""
        entry = self.rows[row]
        found: dict[str, Any] = {}
        for owner, settings in ((self.scale, self.scale.inference.model_dump()), (entry, entry.inference)):
            found |= settings
            for rule in owner.inference_for:
                if rule.applies(row, entry, benchmark):
                    found |= rule.set
        return InferenceOptions(**found)

    def edition(self, dataset: str) -> str:
        """Return the edition of a data set: that of the scale, `own` for those of the user."""
        return "own" if dataset in self.own else self.scale.edition

    def archives(self, dataset: str) -> list[dict[str, Any]]:
        """Return the archives of a data set (`hodor.config.datasets.archives`)."""
        return archives(self.folder / "datasets.csv", dataset, self.edition(dataset))

    def benchmarks(self, row: str) -> tuple[str, ...]:
        """Return the scale's benchmarks that a row is scored on.

        A split or hold-out that it was, or may have been, trained on is none of them; nor are benchmarks without external
        masks.
        """
        if self.rows[row].masks:
            return tuple(id for id, path in self.masks[row].items() if path)
        sources = [source for of in self.lineage(row) if (stage := self.stage(of)) for source in stage.sources]
        seen = {source.dataset for source in sources if source.split != REST}

        def excluded(benchmark: Benchmark) -> bool:
            trained_on = self.rows[row].weights is not None or benchmark.dataset in seen
            same = any((source.dataset, source.split) == (benchmark.dataset, benchmark.split) for source in sources)
            return same or benchmark.split == HOLDOUT and trained_on

        return tuple(id for id in self.scale.benchmarks if not excluded(get_benchmark(id)))

    def secret(self) -> tuple[str, ...]:
        """Return the scale's benchmarks whose ground truth is secret."""
        return tuple(id for id in self.scale.benchmarks if is_secret(id, self.scale.edition))

    def absent_benchmarks(self) -> dict[str, str]:
        """Return benchmark -> reason, for benchmarks that need an absent optional data set."""
        return {
            benchmark: f"it needs the data set {dataset}, which neither the mirror folder nor data/{self.scale.name} has"
            for dataset, values in self.scale.optional.items()
            for benchmark in values.get("benchmarks", ())
            if benchmark not in self.scale.benchmarks
        }

    def substitutes(self, *rows: str) -> list[str]:
        """Return what the rows, or those that they start from, train on instead of the published data, as texts."""
        stages = {self.rows[of].stage for row in rows for of in self.lineage(row)}
        return list(dict.fromkeys(text for stage, text in self.scale.substitutes.items() if stage in stages))

    def trained_on(self, row: str) -> str:
        """Return the training data of a row for tables, such as `pretrained backbone, then coco/train2017 (subset)`."""
        if self.rows[row].weights is not None:
            return "by its authors"
        if self.rows[row].masks:
            return "external masks"
        lineage, parts = self.lineage(row), []
        options = self.options[lineage[0]]
        if options.get("pretrained") or options.get("weights"):
            parts.append(f"pretrained backbone ({options.get('weights') or options['backbone']})")
        for stage in filter(None, map(self.stage, lineage)):
            stated = {self.edition(source.dataset) for source in stage.sources} - {"official", "own"}
            edition = "".join(f" ({edition})" for edition in stated)  # one at most: that of the scale
            parts.append(" + ".join(f"{source.dataset}/{source.split}" for source in stage.sources) + edition)
        return ", then ".join(parts) or "nothing"

    def needed_datasets(self) -> list[str]:
        """Return the data sets that the selected rows and the scale's benchmarks read, in the scale's order."""
        wanted = {dataset for row in self.needed() for dataset in self.datasets(row)}
        wanted |= {get_benchmark(benchmark).dataset for benchmark in self.scale.benchmarks}
        return [dataset for dataset in self.scale.datasets if dataset in wanted]

    def needed(self) -> tuple[str, ...]:
        """Return the selected rows and the rows that they start from, parents first."""
        return tuple(dict.fromkeys(of for row in self.selected for of in self.lineage(row)))

    def tabulated(self, table: str) -> tuple[str, ...]:
        """Return the selected rows in one of TABLES, `costs` or `claims`."""
        if table == "claims":
            return tuple(row for row in self.selected if row in self.claims.rows())
        if table == "costs":  # those of external masks are not known
            return tuple(row for row in self.selected if not self.rows[row].masks)
        return tuple(row for row in self.selected if table in self.rows[row].tables)

    def lineage(self, row: str) -> tuple[str, ...]:
        """Return the rows that a row starts from, in the order of their trainings, and the row itself."""
        parent = self.rows[row].init
        return (*(self.lineage(parent) if parent else ()), row)

    def datasets(self, row: str) -> tuple[str, ...]:
        """Return the data sets that training the row reads, with the set of its starting weights."""
        stage = self.stage(row)
        found = [source.dataset for source in stage.sources] if stage else []
        weights = self.options[row].get("weights")
        if weights is not None and self.rows[row].init is None:
            found.append(weights)
        return tuple(dict.fromkeys(found))


def load(folder: str | Path, overrides: dict[str, Any] | None = None, root: Path = Path()) -> Config:
    """Read and check a configuration; HodorError for any fault names the file, the key and the allowed values.

    Args:
        folder: configuration folder.
        overrides: keys of config.yaml that the command line overrides (`snakemake --config`).
        root: working directory, with released weights and external masks.
    """
    folder = Path(folder)
    name = f"{folder.name}/config.yaml"
    content, given = read_yaml(folder / "config.yaml", name), _nulls(overrides or {})
    settings = validate(Settings, content, name)
    if given:
        settings = validate(Settings, content | given, COMMAND_LINE)
    origin = {key: COMMAND_LINE if key in given else name for key in Settings.model_fields}

    scales = scale_names(folder)
    if settings.scale not in scales:
        raise HodorError(f"{origin['scale']}: scale: {none_of(settings.scale, scales)}")
    mirror, own = _mirror(settings.mirror, origin["mirror"]), load_own(folder)
    scale = _load_scale(folder, settings, origin["overrides"], mirror, root)

    rows_name = f"{folder.name}/rows.yaml"
    rows = validate(Rows, read_yaml(folder / "rows.yaml", rows_name), rows_name).systems
    scale_name = f"{folder.name}/scales/{scale.name}.yaml"
    for i, rule in enumerate(scale.inference_for):
        validate(InferenceOptions, scale.inference.model_dump() | rule.set, scale_name, f"inference_for[{i}].set")
        for what, known in (("rows", list(rows)), ("stages", list(scale.stages))):
            for value in getattr(rule, what) or ():
                if value not in known:
                    raise HodorError(f"{scale_name}: inference_for[{i}].{what}: {none_of(value, known)}")
    options = {row: check_row(row, rows, scale, rows_name) for row in rows}
    checkpoints = {
        row: file for row, entry in rows.items() if entry.weights and (file := locate_weights(entry.weights, root))
    }
    masks = {row: locate_masks(entry, scale, root) for row, entry in rows.items() if entry.masks}
    trained = {row for row, entry in rows.items() if not entry.imported}
    present = {*trained, *checkpoints, *(row for row, found in masks.items() if any(found.values()))}
    selected = select(settings.rows, rows, origin["rows"])
    seeds = scale.seeds if settings.seeds is None else settings.seeds
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise HodorError(f"{origin['seeds']}: seeds: must be different numbers, at least 0 (given: {seeds})")
    return Config(
        settings=settings,
        scale=scale,
        rows=rows,
        selected=tuple(row for row in rows if row in selected and row in present),
        seeds=tuple(seeds),
        options=options,
        claims=load_claims(folder, options),
        mirror=mirror,
        folder=folder,
        servers=load_servers(folder),
        server_scores=load_server_scores(folder, scale.name, scales, list(rows)),
        checkpoints=checkpoints,
        masks=masks,
        own=own,
    )


def _nulls(value: Any) -> Any:
    """Replace the text `null` by None, because Snakemake's command line passes every scalar as text."""
    if isinstance(value, dict):
        return {key: _nulls(entry) for key, entry in value.items()}
    return None if value == "null" else value


def scale_names(folder: Path) -> list[str]:
    """Return the scales in a configuration folder, sorted."""
    return sorted(path.stem for path in (folder / "scales").glob("*.yaml"))


def _load_scale(folder: Path, settings: Settings, name: str, mirror: str | None, root: Path) -> Scale:
    scale_name = f"{folder.name}/scales/{settings.scale}.yaml"
    content = read_yaml(folder / "scales" / f"{settings.scale}.yaml", scale_name)
    optional = content.get("optional")
    found: dict[str, Any] = {}
    for dataset, values in optional.items() if isinstance(optional, dict) else ():
        if dataset in ARCHIVES and isinstance(values, dict) and _at_hand(dataset, settings.scale, mirror, root):
            found |= values
    apply_overrides(content, found | settings.overrides, name if settings.overrides else scale_name, scale_name)
    if settings.overrides:
        scale_name += " (with the overrides)"
    scale = validate(Scale, content, scale_name)
    if scale.name != settings.scale:
        raise HodorError(f"{scale_name}: name: must be that of the file, `{settings.scale}` (given: '{scale.name}')")
    return scale


def _at_hand(dataset: str, scale: str, mirror: str | None, root: Path) -> bool:
    """Return whether the archives of an optional data set have been fetched, or are all in a mirror folder.

    Of a data set of the user that is read in place: whether its folder exists.
    """
    if dataset in OWN and OWN[dataset].folder:
        return Path(OWN[dataset].folder).expanduser().is_dir()
    if (root / paths.fetched(scale, dataset)).is_file():
        return True
    if mirror is None or "://" in mirror:
        return False
    return all((Path(mirror) / dataset / archive).is_file() for archive in ARCHIVES[dataset])


def _mirror(mirror: str | None, origin: str) -> str | None:
    """Return the mirror, which `origin` names, as an absolute path, for steps in other folders, or as a URL."""
    if mirror is None or "://" in mirror:
        return mirror
    try:
        path = Path(mirror).expanduser().resolve()
    except (RuntimeError, ValueError):  # an unknown user, a null byte
        path = Path("/dev/null")
    if not path.is_dir():
        raise HodorError(f"{origin}: mirror: '{mirror}' is neither a folder nor a URL")
    return str(path)
