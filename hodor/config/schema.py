"""Models of config.yaml, rows.yaml and scales/<scale>.yaml, which `hodor.config.loading` checks against each other.

`python -m hodor.config.schema config/schema.json` (`make schema`) writes the JSON schema of all settings files, and the
tables of keys in README.md beside it.
"""

import json
import sys
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from hodor.config.benchmarks import BENCHMARKS, BenchmarkId
from hodor.config.claims import Claims
from hodor.config.datasets import ARCHIVES, EDITIONS, SPLITS, GeneratedOptions
from hodor.config.execution import Execution
from hodor.config.methods import METHODS
from hodor.config.own_datasets import OwnDatasets
from hodor.config.servers import Servers, ServerScores
from hodor.config.stages import InferenceOptions, StageOptions
from hodor.config.validation import Strict, known_in, none_of
from hodor.provenance import write_json_atomic, write_text_atomic

TABLES = ("ablation", "comparison", "extended")
RULES = (
    *("archives", "claims", "data", "fetch", "manifest", "pages", "prepare", "render", "score", "segment"),
    *("submissions", "submit", "tables", "train"),
)
"""Names of the rules in workflow/rules, which are targets on the command line and therefore no ids of rows."""


MethodId = known_in(METHODS)


class Settings(Strict):
    """config/config.yaml and `snakemake --config`."""

    scale: str = Field("mini", description="a file of config/scales, without its ending")
    rows: list[str] = Field(
        ["main"], description="ids of config/rows.yaml, names of tables (`ablation`), `main` (see there) or `all`"
    )
    seeds: list[int] | None = Field(None, description="seeds of every row; null: the scale's own")
    mirror: str | None = Field(None, description="folder or URL that holds <dataset>/<archive>")
    overrides: dict[str, Any] = Field({}, description="dotted keys of the scale -> other values")
    execution: Execution = Field(
        Execution(), description="how trainings are executed; changes results by rounding only"
    )

    @field_validator("rows", "seeds", "mirror", mode="before")
    @classmethod
    def _of_command_line(cls, value: Any, info: ValidationInfo) -> Any:
        """Accept the text that the command line passes, such as seeds=0,1."""
        if isinstance(value, str) and value.lower() in ("", "null", "none") and info.field_name != "rows":
            return None
        if isinstance(value, str) and info.field_name != "mirror":
            return [part.strip() for part in value.split(",") if part.strip()]
        return [value] if isinstance(value, int) else value


class InferenceRule(Strict):
    """Inference settings for some rows or benchmarks; a key that is absent applies to all."""

    methods: list[MethodId] | None = Field(None, description="methods of rows")
    stages: list[str] | None = Field(None, description="rows whose last training stage is one of these")
    rows: list[str] | None = Field(None, description="ids of rows")
    benchmarks: list[BenchmarkId] | None = Field(None, description="ids of benchmarks")
    set: dict[str, Any] = Field(min_length=1, description="settings of `inference` and their values")

    def applies(self, id: str, row: "Row", benchmark: str) -> bool:
        """Return whether the rule applies to a row on a benchmark."""
        chosen = ((self.methods, row.method), (self.stages, row.stage), (self.rows, id), (self.benchmarks, benchmark))
        return all(allowed is None or value in allowed for allowed, value in chosen)


class Row(Strict):
    """One system that is scored: an entry of config/rows.yaml."""

    tables: list[Literal[TABLES]] = Field(min_length=1, description="tables that show the row")
    label: str = Field(description="its name in tables")
    method: MethodId | None = Field(None, description="a key of METHODS in hodor/config/methods.py; not with `masks`")
    options: dict[str, Any] = Field({}, description="method options that differ from the scale's")
    stage: str | None = Field(None, description="a key of the scale's `stages`; null: no training")
    init: str | None = Field(None, description="the row whose weights training starts from")
    note: str = Field("", description="shown wherever the row is shown")

    weights: str | None = Field(
        None, description="the authors' checkpoint instead of a training: a file name in data/weights or a folder of it"
    )
    compare: str | None = Field(None, description="with `weights`: the trained row that it is compared with")
    inference: dict[str, Any] = Field({}, description="with `weights`: inference settings instead of the scale's")
    inference_for: list[InferenceRule] = Field([], description="with `weights`: exceptions from `inference`")
    masks: dict[BenchmarkId, Annotated[str, Field(min_length=1)]] = Field(
        {},
        description="external masks instead of a method: benchmark -> folder or archive of <sequence>/<frame>.png, "
        "relative to the repository",
    )
    edition: Literal["official", "generated"] | None = Field(
        None, description="with `masks`: edition of their data (default: official); other scales do not score them"
    )
    source: str = Field("", description="with `weights` or `masks`: where to get them")
    licence: str = Field("", description="with `weights` or `masks`: their terms of use")

    @model_validator(mode="after")
    def _weights_masks_or_training(self) -> "Row":
        needed: tuple[str, ...]
        other: tuple[str, ...]
        if self.masks:
            kind, needed, other = "`masks`", ("source", "licence"), ("method", "options", "stage", "init", "weights")
            if absolute := [path for path in self.masks.values() if PurePath(path).is_absolute()]:
                raise ValueError(f"`masks` must be relative to the repository (given: {absolute[0]})")
        elif self.weights is not None:
            kind, needed, other = "`weights`", ("method", "compare", "source", "licence"), ("stage", "init", "edition")
            if PurePath(self.weights).name != self.weights:
                raise ValueError("`weights` must be a file name without folders")
        else:
            kind, needed, other = "neither `weights` nor `masks`", ("method",), ("source", "licence", "edition")
        if self.weights is None:
            other += ("compare", "inference", "inference_for")
        if given := [name for name in other if getattr(self, name)]:
            raise ValueError(f"a row with {kind} has no `{given[0]}`")
        if missing := [name for name in needed if not getattr(self, name)]:
            raise ValueError(f"a row with {kind} needs `{missing[0]}`")
        if not self.masks and "stage" not in self.model_fields_set:
            raise ValueError("`stage` is missing; null: no training")
        return self

    @property
    def imported(self) -> bool:
        """Whether weights or masks were made elsewhere, so that nothing is trained and there are no seeds."""
        return bool(self.weights or self.masks)

    def shown(self) -> dict[str, Any]:
        """Return what tables show of the row."""
        keys = {"label", "options", "note", "weights", "compare", "source", "licence"}
        shown = self.model_dump(mode="json", include=keys)
        if self.masks:
            note = "; ".join(filter(None, [f"from {self.source}, licence: {self.licence}", self.note]))
            shown |= {"label": f"{self.label} (external)", "masks": self.masks, "note": note}
        return shown


RowId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Rows(Strict):
    """config/rows.yaml. The key `systems` is what dvc.yaml loops over."""

    systems: dict[RowId, Row] = Field(description="id of a row -> the row")


class Scale(Strict):
    """config/scales/<name>.yaml: one size of the whole experiment."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="that of the file")
    title: str = Field(description="name of the scale in tables and pages")
    caption: str = Field(description="what the numbers of this scale show and do not show; below every table")
    edition: Literal[EDITIONS] = Field(description="edition of the data sets (config/datasets.csv)")
    generated: GeneratedOptions | None = Field(None, description="for the edition `generated`, and only for it")
    datasets: list[known_in(ARCHIVES)] = Field(min_length=1, description="data sets that the scale needs")
    seeds: list[int] = Field([0], min_length=1, description="seeds of every row")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where trainings and segmentations compute")
    threads: int = Field(
        1, ge=1, le=1024, description="torch threads of one training or segmenting job; numbers depend on it"
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32", description="of matrix products and convolutions; tf32 makes a difference on GPUs alone"
    )
    methods: dict[MethodId, dict[str, Any]] = Field(
        {}, description="method id -> options of its networks at this scale"
    )
    stages: dict[str, StageOptions] = Field({}, description="stage id -> its training settings")
    inference: InferenceOptions = Field(InferenceOptions(), description="settings of segmentation")
    inference_for: list[InferenceRule] = Field([], description="exceptions from `inference`; a later rule wins")
    benchmarks: list[BenchmarkId] = Field(min_length=1, description="benchmarks on which rows are scored")
    optional: dict[known_in(ARCHIVES), dict[str, Any]] = Field(
        {}, description="data set -> dotted keys of this file and other values, which apply if it is available"
    )
    substitutes: dict[str, str] = Field(
        {}, description="stage -> text of verdicts on its data, if these are not the published ones"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Scale":
        if (self.edition == "generated") != (self.generated is not None):
            raise ValueError("`generated` must be given for edition `generated` and for no other")
        for stage, options in self.stages.items():
            for source in options.sources:
                if source.dataset not in self.datasets:
                    raise ValueError(f"stages.{stage}.sources: {none_of(source.dataset, self.datasets)}")
                if source.split not in (splits := SPLITS.get(source.dataset, ())):
                    raise ValueError(f"stages.{stage}.sources: {source.dataset}: {none_of(source.split, splits)}")
        for benchmark in self.benchmarks:
            if BENCHMARKS[benchmark].dataset not in self.datasets:
                raise ValueError(f"benchmarks: {benchmark} needs `{BENCHMARKS[benchmark].dataset}` among `datasets`")
        for stage in self.substitutes:
            if stage not in self.stages:
                raise ValueError(f"substitutes: {none_of(stage, list(self.stages))}")
        for name in ("datasets", "seeds", "benchmarks"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name}: an entry is given twice")
        return self


def schema() -> dict[str, Any]:
    """Return the JSON schema of all settings files, for editors."""
    definitions: dict[str, Any] = {}

    def add(model: type[BaseModel], title: str) -> dict[str, str]:
        content = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(content.pop("$defs", {}))
        definitions[title] = content
        return {"$ref": f"#/$defs/{title}"}

    methods = {name: add(entry.options, f"methods.{name}") for name, entry in METHODS.items() if entry.options}
    files = {
        "config.yaml": add(Settings, "Settings"),
        "rows.yaml": add(Rows, "Rows"),
        "claims.yaml": add(Claims, "Claims"),
        "scales/*.yaml": add(Scale, "Scale"),
        "own_datasets.yaml": add(OwnDatasets, "OwnDatasets"),
        "servers.yaml": add(Servers, "Servers"),
        "server_scores.yaml": add(ServerScores, "ServerScores"),
    }
    definitions["Scale"]["properties"]["methods"]["properties"] = methods
    # A stage with `like` may omit settings (`hodor.config.overrides`).
    stage = definitions["StageOptions"]
    like = {
        "description": "the stage whose settings it has where it states none; all keys of StageOptions are allowed",
        "type": "string",
    }
    definitions["StageLike"] = {
        "additionalProperties": False,
        "properties": {"like": like, **stage["properties"]},
        "required": ["like"],
        "type": "object",
    }
    either = [{"$ref": f"#/$defs/{name}"} for name in ("StageOptions", "StageLike")]
    definitions["Scale"]["properties"]["stages"]["additionalProperties"] = {"anyOf": either}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The settings files of this folder",
        "type": "object",
        "properties": files,
        "$defs": dict(sorted(definitions.items())),
    }


TABLES_BELOW = "<!-- `make schema` writes what follows -->\n"
"""Line of config/README.md above the tables of keys."""


def manual() -> str:
    """Return tables of every key of the settings files in Markdown."""
    content = schema()
    definitions = content["$defs"]
    titles = {_reference(entry): f"`{file}`" for file, entry in content["properties"].items()}
    pages = []
    for title in dict.fromkeys((*titles, *definitions)):
        entry, lines, parent = definitions[title], [f"## {titles.get(title, title)}"], {}
        if title in ("methods.kmn", "methods.stcn"):
            parent = definitions["methods.stm"]["properties"]
            lines += ["", "As [methods.stm](#methodsstm), except for:"]
        lines += ["", "| key | value | default | meaning |", "|---|---|---|---|"]
        for key, value in entry["properties"].items():
            if title == "StageLike" and key != "like":  # a key of StageOptions
                continue
            if key in parent and value.get("default") == parent[key]["default"]:
                continue
            default = f"`{json.dumps(value['default'])}`" if "default" in value else "needed"
            meaning = (parent.get(key) or value)["description"].replace("<", "&lt;")
            lines.append(f"| `{key}` | {_kind(value)} | {'its own' if '$ref' in value else default} | {meaning} |")
        pages.append("\n".join(lines) + "\n")
    return "\n".join(pages)


def _reference(entry: dict[str, Any]) -> str:
    return entry["$ref"].removeprefix("#/$defs/")


def _kind(entry: dict[str, Any]) -> str:
    """Return the values that a key accepts, in words."""
    if "anyOf" in entry:
        return " or ".join(map(_kind, entry["anyOf"]))
    if "$ref" in entry:
        title = _reference(entry)
        return f"[{title}](#{title.lower()})"
    if "enum" in entry or "const" in entry:
        return ", ".join(f"`{value}`" for value in entry.get("enum", [entry.get("const")]))
    if entry.get("type") == "array":
        inside = entry.get("items") or entry["prefixItems"][0]
        return (
            f"{len(entry['prefixItems'])} × {_kind(inside)}" if "prefixItems" in entry else f"list of {_kind(inside)}"
        )
    if entry.get("type") == "object":
        inside = entry.get("additionalProperties") or next(iter(entry.get("patternProperties", {}).values()), None)
        return f"mapping to {_kind(inside)}" if isinstance(inside, dict) else "mapping"
    limits = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    parts = [entry.get("type", "any value"), *(f"{sign} {entry[name]}" for name, sign in limits if name in entry)]
    return " ".join(parts)


if __name__ == "__main__":
    write_json_atomic(sys.argv[1], schema())
    readme = Path(sys.argv[1]).with_name("README.md")
    write_text_atomic(
        readme, readme.read_text(encoding="utf-8").partition(TABLES_BELOW)[0] + TABLES_BELOW + "\n" + manual()
    )
