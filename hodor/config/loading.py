"""The configuration: config.yaml, rows.yaml, claims.yaml and one scales/<scale>.yaml of config/, checked as a whole.

`load` is the only reader. The steps of the workflow never see it: they read stamps (`hodor.stamps`), which hold the
slice of the configuration that they use.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hodor import paths
from hodor.config.benchmarks import HOLDOUT, REST, get_benchmark, is_secret
from hodor.config.claims import Claims, load_claims
from hodor.config.datasets import ARCHIVES
from hodor.config.methods import METHODS
from hodor.config.rows import check_row, locate_masks, locate_weights, select
from hodor.config.schema import Row, Rows, Scale, Settings
from hodor.config.servers import Server, ServerScore, load_server_scores, load_servers
from hodor.config.stages import InferenceOptions, PackId, StageOptions, packs
from hodor.config.validation import none_of, read_yaml, settle, validate
from hodor.errors import HodorError


@dataclass(frozen=True)
class Config:
    """The checked configuration.

    Attributes:
        scale: with overrides applied.
        rows: every row.
        selected: ids of the rows that the tables show numbers of, in the order of `rows`. Rows of released weights or
            external masks that are absent are not among them.
        options: row id -> method options; complete, but for rows of released weights, whose file has the others.
        claims: what the rows are to decide.
        mirror: None, a URL or an absolute path.
        servers: secret benchmark -> where it is scored.
        server_scores: scores that servers returned for this scale's masks.
        checkpoints: row of released weights -> its file, for those that are present.
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

    def seeds_of(self, row: str) -> tuple[int, ...]:
        """Seeds that a row is run with. Released weights and external masks have no seed; their run is seed 0."""
        return (0,) if self.rows[row].weights or self.rows[row].masks else self.seeds

    def absent_files(self, row: str) -> tuple[str, ...]:
        """The files of released weights or external masks that the row needs at this scale and that are not there."""
        entry = self.rows[row]
        if entry.weights:
            return () if row in self.checkpoints else (str(paths.weights() / entry.weights),)
        return tuple(entry.masks[id] for id, path in self.masks.get(row, {}).items() if path is None)

    def require(self, row: str) -> None:
        """Raise HodorError for a row of released weights or external masks that is not selected, as they are absent."""
        if row not in self.selected and (absent := self.absent_files(row)):
            raise HodorError(f"{absent[0]}: no such file; {self.how_to_get(row)}")

    def how_to_get(self, row: str) -> str:
        """How to get the released weights or external masks of a row that are absent; empty where none is."""
        entry, absent = self.rows[row], self.absent_files(row)
        how = f"place the masks in {' and '.join(absent)}"
        if entry.weights:
            how = f"hodor fetch weights, or place {entry.weights} in data/weights/"
        return f"get it by: {how} (from {entry.source})" if absent else ""

    def stage(self, row: str) -> StageOptions | None:
        """The training stage of a row; None where it is not trained."""
        name = self.rows[row].stage
        return self.scale.stages[name] if name else None

    def inference(self, row: str, benchmark: str) -> InferenceOptions:
        """How a row segments a benchmark: the scale's settings and its exceptions, then the row's own."""
        entry, settings = self.rows[row], self.scale.inference.model_dump()
        for rule in self.scale.inference_for:
            if rule.applies(row, entry, benchmark):
                settings |= rule.set
        settings |= entry.inference
        for rule in entry.inference_for:
            if rule.applies(row, entry, benchmark):
                settings |= rule.set
        return InferenceOptions(**settings)

    def benchmarks(self, row: str) -> tuple[str, ...]:
        """The scale's benchmarks that a row is scored on: not a hold-out that it was trained on, or may have been.

        Of external masks those whose masks are present.
        """
        if self.rows[row].masks:
            return tuple(id for id, path in self.masks[row].items() if path)
        return tuple(id for id in self.scale.benchmarks if not self._was_trained_on(row, id))

    def secret(self) -> tuple[str, ...]:
        """The scale's benchmarks whose ground truth only a server has."""
        return tuple(id for id in self.scale.benchmarks if is_secret(id, self.scale.edition))

    def _was_trained_on(self, row: str, benchmark: str) -> bool:
        entry = get_benchmark(benchmark)
        if self.rows[row].weights is not None:
            return entry.split == HOLDOUT
        stages = [stage for of in self.lineage(row) if (stage := self.stage(of)) is not None]
        sources = [source for stage in stages for source in stage.sources if source.dataset == entry.dataset]
        return entry.split == HOLDOUT and any(source.split != REST for source in sources)

    def absent(self) -> dict[str, str]:
        """Benchmarks that the scale has only with an optional data set that is not at hand -> the reason, in words."""
        return {
            benchmark: f"it needs the data set {dataset}, which neither the mirror folder nor data/{self.scale.name} has"
            for dataset, values in self.scale.optional.items()
            for benchmark in values.get("benchmarks", ())
            if benchmark not in self.scale.benchmarks
        }

    def substitutes(self, *rows: str) -> list[str]:
        """What the rows, or those that they start from, train on instead of the published data, in words."""
        stages = {self.rows[of].stage for row in rows for of in self.lineage(row)}
        return list(dict.fromkeys(text for stage, text in self.scale.substitutes.items() if stage in stages))

    def trained_on(self, row: str) -> str:
        """Training data of a row for tables, in order: `pretrained backbone, then coco/train2017 (subset)`."""
        if self.rows[row].weights is not None:
            return "by its authors"
        if self.rows[row].masks:
            return "external masks"
        parts: list[str] = []
        at: str | None = row
        while at is not None:
            entry, stage = self.rows[at], self.stage(at)
            if stage is not None:
                edition = "" if self.scale.edition == "official" else f" ({self.scale.edition})"
                parts.insert(0, " + ".join(f"{source.dataset}/{source.split}" for source in stage.sources) + edition)
            options = self.options[at]
            if entry.init is None and (options.get("pretrained") or options.get("weights")):
                parts.insert(0, f"pretrained backbone ({options.get('weights') or options['backbone']})")
            at = entry.init
        return ", then ".join(parts) or "nothing"

    def needed(self) -> tuple[str, ...]:
        """The selected rows and the rows that these start from, parents first."""
        return tuple(dict.fromkeys(of for row in self.selected for of in self.lineage(row)))

    def tabulated(self, table: str) -> tuple[str, ...]:
        """The selected rows that one of TABLES, `costs` or `claims` holds numbers of."""
        if table == "claims":
            return tuple(row for row in self.selected if row in self.claims.rows())
        if table == "costs":  # those of external masks are not known
            return tuple(row for row in self.selected if not self.rows[row].masks)
        return tuple(row for row in self.selected if table in self.rows[row].tables)

    def lineage(self, row: str) -> tuple[str, ...]:
        """The row and the rows that it starts from, the first of them first."""
        parent = self.rows[row].init
        return (*(self.lineage(parent) if parent else ()), row)

    def packs(self, *rows: str) -> dict[str, PackId]:
        """Packs of training data that the rows read, by name."""
        return {id.name: id for row in rows for id in packs(self.stage(row))}

    def plain(self, row: str) -> tuple[str, ...]:
        """Those of `datasets` that training the row reads directly, not from packs."""
        packed = {id.dataset for id in self.packs(row).values()}
        return tuple(name for name in self.datasets(row) if name not in packed)

    def datasets(self, row: str) -> tuple[str, ...]:
        """Data sets that training the row reads, the set of its starting weights included."""
        stage = self.stage(row)
        found = [source.dataset for source in stage.sources] if stage else []
        weights = self.options[row].get("weights")
        if weights is not None and self.rows[row].init is None:
            found.append(weights)
        return tuple(dict.fromkeys(found))


def load(folder: str | Path, overrides: dict[str, Any] | None = None, root: Path = Path()) -> Config:
    """Read and check the folder `config`; HodorError for any fault, with the file, the key and the allowed values.

    Args:
        overrides: keys of config.yaml that the command line sets instead (`snakemake --config`).
        root: the working directory, where released weights and external masks are looked for.
    """
    folder = Path(folder)
    name = f"{folder.name}/config.yaml"
    content = read_yaml(folder / "config.yaml", name)
    for key in overrides or {}:
        if key not in Settings.model_fields:
            raise HodorError(f"--config {key}: unknown key, {none_of(key, list(Settings.model_fields))}")
    settings = validate(Settings, content | _nulls(overrides or {}), name)

    scales = scale_names(folder)
    if settings.scale not in scales:
        raise HodorError(f"{name}: scale: {none_of(settings.scale, scales)}")
    mirror = _mirror(settings.mirror)
    scale = _load_scale(folder, settings, name, mirror, root)

    rows_name = f"{folder.name}/rows.yaml"
    rows = validate(Rows, read_yaml(folder / "rows.yaml", rows_name), rows_name).systems
    for i, rule in enumerate(scale.inference_for):
        for what, known in (("rows", list(rows)), ("methods", list(METHODS))):
            for value in getattr(rule, what) or ():
                if value not in known:
                    place = f"{folder.name}/scales/{scale.name}.yaml: inference_for[{i}].{what}"
                    raise HodorError(f"{place}: {none_of(value, known)}")
    options = {row: check_row(row, rows, scale, rows_name) for row in rows}
    checkpoints = {
        row: file for row, entry in rows.items() if entry.weights and (file := locate_weights(entry.weights, root))
    }
    masks = {row: locate_masks(entry, scale, root) for row, entry in rows.items() if entry.masks}
    trained = {row for row, entry in rows.items() if not (entry.weights or entry.masks)}
    present = {*trained, *checkpoints, *(row for row, found in masks.items() if any(found.values()))}
    selected = select(settings.rows, rows, name)
    seeds = scale.seeds if settings.seeds is None else settings.seeds
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise HodorError(f"{name}: seeds: must be different numbers from 0 on (given: {seeds})")
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
    )


def _nulls(value: Any) -> Any:
    """`value` with null for the text `null`: Snakemake's command line hands over every scalar as text."""
    if isinstance(value, dict):
        return {key: _nulls(entry) for key, entry in value.items()}
    return None if value == "null" else value


def scale_names(folder: Path) -> list[str]:
    """Scales that a configuration folder holds, sorted."""
    return sorted(path.stem for path in (folder / "scales").glob("*.yaml"))


def _load_scale(folder: Path, settings: Settings, name: str, mirror: str | None, root: Path) -> Scale:
    scale_name = f"{folder.name}/scales/{settings.scale}.yaml"
    content = read_yaml(folder / "scales" / f"{settings.scale}.yaml", scale_name)
    optional = content.get("optional")
    found: dict[str, Any] = {}
    for dataset, values in optional.items() if isinstance(optional, dict) else ():
        if dataset in ARCHIVES and isinstance(values, dict) and _at_hand(dataset, settings.scale, mirror, root):
            found |= values
    settle(content, found | settings.overrides, name if settings.overrides else scale_name, scale_name)
    if settings.overrides:
        scale_name += " (with the overrides)"
    scale = validate(Scale, content, scale_name)
    if scale.name != settings.scale:
        raise HodorError(f"{scale_name}: name: must be that of the file, `{settings.scale}` (given: '{scale.name}')")
    for method in scale.methods:
        if method not in list(METHODS):
            raise HodorError(f"{scale_name}: methods: {none_of(method, list(METHODS))}")
    return scale


def _at_hand(dataset: str, scale: str, mirror: str | None, root: Path) -> bool:
    """Whether the archives of an optional data set were fetched, or are all in a mirror that is a folder."""
    if (root / paths.fetched(scale, dataset)).is_file():
        return True
    inside = mirror is not None and "://" not in mirror
    return inside and all((Path(mirror) / dataset / archive).is_file() for archive in ARCHIVES[dataset])


def _mirror(mirror: str | None) -> str | None:
    """The mirror as an absolute path, for steps that run elsewhere; URLs are kept."""
    if mirror is None or "://" in mirror:
        return mirror
    try:
        path = Path(mirror).expanduser().resolve()
    except (RuntimeError, ValueError):  # an unknown user, a null byte
        path = Path("/dev/null")
    if not path.is_dir():
        raise HodorError(f"config/config.yaml: mirror: '{mirror}' is neither a folder nor a URL")
    return str(path)
