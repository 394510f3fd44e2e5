"""The configuration: what is in the repository is valid, and every fault is named with its key and what is allowed."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from hodor.config import loading as config
from hodor.config.datasets import ARCHIVES, SPLITS, WEIGHT_SETS
from hodor.config.rows import options_class
from hodor.config.schema import RULES, TABLES_BELOW, manual, schema
from hodor.data.still_images import LAYOUTS
from hodor.errors import HodorError
from tests.checkouts import ABSENT, set_yaml

SCALES = ["mini", "paper", "subset", "tiny"]


def message(folder: Path, overrides: dict | None = None) -> str:
    with pytest.raises(HodorError) as error:
        config.load(folder, overrides)
    return str(error.value)


def test_every_scale_is_valid(root):
    assert config.scale_names(root / "config") == SCALES
    for scale in SCALES:
        loaded = config.load(root / "config", {"scale": scale})
        assert loaded.scale.name == scale
        # Trained, and in neither table of the paper.
        extended = {"hodor-soft-coco-alpha-scaled", "hodor-soft-cyclic-detached", "hodor-soft-dense"}
        assert extended <= set(loaded.rows) and not extended & set(loaded.selected)
        assert {"hodor-soft-cyclic", "copy-first-mask"} <= set(loaded.selected)
        assert loaded.options["hodor-hard-coco"]["attention"] == "hard"
        soft = loaded.options["hodor-soft-coco"]
        assert loaded.options["hodor-soft-coco-alpha-scaled"] == soft | {"alpha_inside_scale": True}
        for row in loaded.rows:
            stage = loaded.stage(row)
            for source in stage.sources if stage else ():
                videos = source.dataset.startswith(("davis", "youtube-vos"))
                assert source.split in ("train", "train-without-holdout") or not videos, "trained on val"


def test_paper_scale_is_the_published_network(root):
    options = config.load(root / "config", {"scale": "paper"}).options
    changed = {"hodor": {"attention": "soft", "weights": "swin-tiny-mask-rcnn-3x"}}
    for method in ("hodor", "stm", "kmn", "stcn"):
        published = options_class(method)().model_dump(mode="json")
        row = "hodor-soft-coco" if method == "hodor" else method
        assert options[row] == published | changed.get(method, {"weights": "resnet-imagenet"})


def test_paper_numbers_say_where_they_come_from(root):
    """Every number of the published setting has a source behind it; the machine's own settings need none."""
    ours = re.compile(r"\b(workers|checkpoint_every|log_every|threads|feature_batch)\b")
    lines = (root / "config/scales/paper.yaml").read_text().splitlines()
    number = re.compile(r":\s*\[?-?\d")
    covered = False  # by the comment above, or by that of the key that the line belongs to
    for line in lines:
        content, _, comment = (part.strip() for part in line.partition("#"))
        if number.search(content) and not ours.search(content):
            assert covered or comment, line
        elif content.endswith(":") or not content:
            covered = "[" in comment or (covered and bool(comment))


def test_the_splits_are_those_that_the_readers_open():
    assert {name: SPLITS[name] for name in LAYOUTS} == {name: tuple(splits) for name, splits in LAYOUTS.items()}
    assert SPLITS.keys() == ARCHIVES.keys() - WEIGHT_SETS.keys()


def test_a_row_is_not_scored_on_a_holdout_that_it_was_trained_on(root):
    loaded = config.load(root / "config", {"scale": "paper"})
    scored = {row for row in loaded.rows if "ytvos-holdout" in loaded.benchmarks(row)}
    trained = {row for row in loaded.rows if "youtube-vos/train" in loaded.trained_on(row)}
    assert trained - scored == trained - {"hodor-soft-cyclic-holdout"} >= {"hodor-soft-cyclic", "hodor-soft-dense"}
    released = {row for row, entry in loaded.rows.items() if entry.weights}  # trained on what their authors had
    assert scored == set(loaded.rows) - trained - released | {"hodor-soft-cyclic-holdout"}
    assert "youtube-vos/train-without-holdout" in loaded.trained_on("hodor-soft-cyclic-holdout")


def test_servers_have_the_ground_truth_of_official_editions_alone(root):
    secret = ("davis2017-test-dev", "ytvos2018-val", "ytvos2019-val")
    assert config.load(root / "config", {"scale": "paper"}).secret() == secret
    assert config.load(root / "config", {"scale": "mini"}).secret() == ()


MINI, NONE, CLAIM = "scales/mini.yaml", "systems.hodor-none-coco", "claims.soft-over-none-coco"
FAULTS = [
    (MINI, "stages.images.learning_rat", 1, "stages.images.learning_rat: unknown key"),
    (MINI, "stages.images.learning_rat", 1, "nearest: learning_rate"),
    (MINI, "stages.images.learning_rate", ABSENT, "stages.images.learning_rate: missing"),
    (MINI, "stages.images.learning_rate", float("inf"), "learning_rate"),
    (MINI, "stages.images.sources.0.split", "trian2017", "coco: 'trian2017' is none of train2017"),
    (MINI, "threads", 0, "(given: 0)"),
    (MINI, "threads", True, "threads: must not be true or false"),
    ("config.yaml", "seeds", [True], "seeds: must not be true or false"),
    (MINI, "device", "gpu", "device: 'gpu' is none of cpu or cuda"),
    (MINI, "edition", "official", "must be given for edition `generated`"),
    (MINI, "datasets", ["coco", "youtube-vos"], "is none of coco, youtube-vos"),
    (MINI, "benchmarks", ["davis2017-vla"], "benchmarks.0: 'davis2017-vla' is"),
    (MINI, "benchmarks", ["davis2017-val", "davis2017-val"], "given twice"),
    (MINI, "name", "maxi", "must be that of the file, `mini`"),
    (MINI, "inference_for", [{"set": {"short_sid": 5}}], "inference_for[0].set.short_sid"),
    (MINI, "inference_for", [{"set": {"short_side": 5}}], "inference_for[0].set.short_side"),
    *(
        (MINI, "inference_for", [{key: ["x"], "set": {"short_side": 64}}], f"[0].{key}: 'x' is none")
        for key in ("stages", "rows")
    ),
    *(
        (MINI, "inference_for", [{key: ["x"], "set": {"short_side": 64}}], f"inference_for.0.{key}.0: 'x' is none")
        for key in ("benchmarks", "methods")
    ),
    ("rows.yaml", f"{NONE}.options.attention", "non", "'non' is none of none, hard, soft"),
    ("rows.yaml", f"{NONE}.options.attention", "non", "hodor-none-coco.options with config/scales/mini.yaml"),
    ("rows.yaml", f"{NONE}.method", "hodr", "hodor-none-coco.method: 'hodr' is none of"),
    ("rows.yaml", f"{NONE}.stage", "image", "hodor-none-coco.stage: 'image' is none of images, cyclic"),
    ("rows.yaml", f"{NONE}.tables", ["ablations"], "hodor-none-coco.tables.0: 'ablations' is none of"),
    ("rows.yaml", f"{NONE}.label", ABSENT, f"{NONE}.label: missing"),
    ("rows.yaml", "systems.hodor-none-cyclic.init", "hodor-non-coco", "init: 'hodor-non-coco' is none of"),
    ("rows.yaml", "systems.hodor-none-cyclic.init", "hodor-none-cyclic", "start from each other in a cycle"),
    ("claims.yaml", f"{CLAIM}.kind", "beter", "soft-over-none-coco.kind: 'beter' is none of better"),
    ("claims.yaml", f"{CLAIM}.kin", "better", f"{CLAIM}.kin: unknown key"),
    ("claims.yaml", f"{CLAIM}.rows", ["hodor-soft-coco", "hodor-non-coco"], "nearest: hodor-none-coco"),
    ("claims.yaml", f"{CLAIM}.rows", ["stm", "stm"], "needs two different rows"),
    ("claims.yaml", f"{CLAIM}.benchmarks", [], "two different rows and at least one benchmark"),
    ("claims.yaml", f"{CLAIM}.benchmarks", ["davis-val"], "benchmarks.0: 'davis-val' is none of"),
    ("claims.yaml", f"{CLAIM}.source", ABSENT, f"{CLAIM}.source: missing"),
    ("claims.yaml", "claims.alphas-move-coco.rows", ["hodor-hard-coco"], "hodor-hard-coco has no alphas"),
    ("claims.yaml", "claims.alphas-move-coco.rows", ["hodor-soft-coco", "stm"], "needs one row and no benchmark"),
    ("claims.yaml", "claims.Soft over none", {}, "claims.Soft over none"),
    ("claims.yaml", "evidence.offical", "x", "evidence.offical"),
    ("claims.yaml", "bootstrap.resamples", 1, "bootstrap.resamples"),
]


@pytest.mark.parametrize(("file", "key", "value", "expected"), FAULTS)
def test_a_fault_is_named_with_file_key_and_what_is_allowed(folder, file, key, value, expected):
    set_yaml(folder / file, key, value)
    text = message(folder)
    assert text.startswith(f"config/{file}") and expected in text


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (MINI, "name: [mini", f"config/{MINI}, line"),
        ("rows.yaml", "systems: {a: {}, a: {}}", "key 'a' is given twice"),
        ("rows.yaml", "? [a, b]\n: c", "a key must be a name"),
        ("server_scores.yaml", "date: 2026-02-30", "day is out of range"),
    ],
)
def test_what_is_no_yaml_is_named_with_its_file(folder, file, text, expected):
    (folder / file).write_text(text)
    assert message(folder).startswith(f"config/{file}") and expected in message(folder)


def test_claims_are_about_selected_rows(root):
    loaded = config.load(root / "config")
    ids = [entry["id"] for entry in loaded.claims.entries()]
    assert len(set(ids)) == len(ids) > 30
    assert {"soft-over-none-coco-davis2016-val", "hodor-over-stm-ytvos-holdout"} <= set(ids)
    assert loaded.claims.rows() <= set(loaded.selected), "`rows: [main]` decides every claim"


@pytest.mark.parametrize("file", ["config.yaml", "rows.yaml", "claims.yaml", "scales/mini.yaml"])
def test_a_missing_or_empty_file(folder, file):
    if file == "config.yaml":
        (folder / file).write_text("")
        assert config.load(folder).scale.name == "mini"
        return
    (folder / file).unlink()
    expected = "'mini' is none of paper, subset, tiny" if file.startswith("scales") else f"config/{file}: no such file"
    assert expected in message(folder)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"scale": "minni"}, "command line: scale: 'minni' is none of mini, paper, subset, tiny"),
        ({"scael": "mini"}, "command line: scael: unknown key, 'scael' is none of scale, rows"),
        ({"rows": "hodor-soft-cocos"}, "nearest: hodor-soft-coco"),
        *(({"seeds": seeds}, "command line: seeds") for seeds in ([], [0, 0], [-1], "a", [2**64])),
        (
            {"overrides": {"stages.image.steps": 7}},
            "overrides.stages.image.steps: in stages, 'image' is none of images",
        ),
        ({"overrides": {"stages.images.step": 7}}, "mini.yaml (with the overrides): stages.images.step: unknown key"),
        (
            {"scale": "subset", "overrides": {"substitutes.cyclc": "x"}},
            "substitutes: 'cyclc' is none of images, cyclic",
        ),
        ({"mirror": "nowhere"}, "mirror: 'nowhere' is neither a folder nor a URL"),
    ],
)
def test_a_fault_of_the_command_line(root, given, expected):
    assert expected in message(root / "config", given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, (0,)), ([0, 2], (0, 2)), ("0,1", (0, 1)), (3, (3,)), ("3", (3,)), ("null", (0,))],
)
def test_seeds(root, given, expected):
    assert config.load(root / "config", {"scale": "tiny", "seeds": given}).seeds == expected


def test_overrides_change_the_scale(root):
    loaded = config.load(root / "config", {"overrides": {"stages.images.steps": 7, "threads": "2"}})
    assert loaded.stage("hodor-soft-coco").steps == 7 and loaded.scale.threads == 2
    # Snakemake hands over every scalar as text.
    loaded = config.load(root / "config", {"scale": "paper", "overrides": {"methods.hodor.weights": "null"}})
    assert loaded.options["hodor-soft-coco"]["weights"] is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("methods.hodor.backbone_depths", value) for value in ([0, 1, 1, 1], [-1, 1, 1, 1], [10**9, 1, 1, 1])),
        *(("methods.hodor.encoder_layers", value) for value in (0, 10**6)),
        ("methods.hodor.background_grid", [0, 3]),
        ("methods.stm.memory_depths", [3, -4, 6]),
        *(("stages.images.learning_rate", value) for value in (-1, 0, 1e30, "inf", "nan")),
        *(("stages.images.batch", value) for value in (0, 10**12)),
        ("stages.images.decay_steps", [-5]),
        ("inference.short_side", 10**10),
        ("threads", 10**6),
        ("generated.seed", 2**64),
    ],
)
def test_absurd_numbers_are_refused(root, key, value):
    given = {"scale": "tiny", "rows": "all", "overrides": {key: value}}
    assert key.rpartition(".")[2] in message(root / "config", given)


def test_reserved_names_are_those_of_the_rules(root):
    files = [root / "workflow" / "Snakefile", *(root / "workflow" / "rules").glob("*.smk")]
    names = {name for file in files for name in re.findall(r"^rule (\w+):", file.read_text(), re.MULTILINE)}
    assert set(RULES) == names - {"all"} | {"claims"}, "which is named in a loop"


@pytest.mark.parametrize("id", ["../x", "a b", "a;b", "a`b`", "-a", "A", "train", "main", "ablation"])
def test_row_ids_are_safe_in_commands_and_paths(folder, id):
    entry = yaml.safe_load((folder / "rows.yaml").read_text())["systems"]["copy-first-mask"]
    (folder / "rows.yaml").write_text(yaml.safe_dump({"systems": {id: entry}}))
    assert id in message(folder)


@pytest.mark.parametrize(
    ("rows", "there", "absent"),
    [
        ("all", "hodor-soft-dense", None),
        ("ablation", "hodor-none-cyclic", "copy-first-mask"),
        ("comparison,copy-first-mask", "copy-first-mask", "hodor-none-coco"),
        (["main"], "copy-first-mask", "hodor-soft-dense"),
        # Reads the weights of a row of the main tables: no training of its own.
        ("main", "hodor-soft-coco-alpha0", "stm-stcn-recipe"),
    ],
)
def test_rows_can_be_groups(root, rows, there, absent):
    selected = config.load(root / "config", {"rows": rows}).selected
    assert there in selected and absent not in selected


def test_rows_are_selected_in_the_order_of_the_file(root):
    for rows in ("hodor-soft-coco, copy-first-mask", ["copy-first-mask", "hodor-soft-coco"]):
        assert config.load(root / "config", {"rows": rows}).selected == ("hodor-soft-coco", "copy-first-mask")


def test_main_holds_nothing_that_starts_from_an_extended_training(folder):
    set_yaml(folder / "rows.yaml", "systems.hodor-soft-coco-alpha0.init", "hodor-soft-dense")
    assert "hodor-soft-coco-alpha0" not in config.load(folder).selected


def test_inference_rules_are_for_what_they_name(folder):
    rules = [
        {"stages": ["cyclic"], "set": {"short_side": 576, "long_side": 1200}},
        {"methods": ["hodor"], "benchmarks": ["davis2017-test-dev"], "set": {"temporal_window": 5}},
        {"rows": ["hodor-none-cyclic"], "set": {"short_side": 600}},
    ]
    set_yaml(folder / MINI, "inference_for", rules)
    loaded = config.load(folder)
    assert loaded.inference("hodor-soft-coco", "davis2017-val") == loaded.scale.inference
    changed = loaded.inference("hodor-soft-cyclic", "davis2017-val")
    assert (changed.short_side, changed.long_side, changed.temporal_window) == (576, 1200, 7)
    assert loaded.inference("hodor-soft-coco", "davis2017-test-dev").temporal_window == 5
    assert loaded.inference("copy-first-mask", "davis2017-test-dev").temporal_window == 7
    assert loaded.inference("hodor-none-cyclic", "davis2017-val").short_side == 600


def test_every_row_trained_on_video_segments_at_the_size_of_its_training(root):
    paper = config.load(root / "config", {"scale": "paper", "rows": "all"})
    rows = {id for id, row in paper.rows.items() if row.stage and paper.stage(id).kind.endswith("video")}
    assert "hodor-soft-cyclic-holdout" in rows
    assert {paper.inference(row, "davis2017-val").short_side for row in rows} == {576}


def test_mirror_is_a_url_or_a_folder(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "archives").mkdir()
    for given, expected in (
        ("archives", str(tmp_path / "archives")),
        ("https://example.org/m", "https://example.org/m"),
        ("null", None),
    ):
        assert config.load(root / "config", {"mirror": given}).mirror == expected


def test_schema_and_manual_are_those_of_the_models(root):
    assert (root / "config/README.md").read_text().partition(TABLES_BELOW)[2] == "\n" + manual(), (
        "config/README.md is out of date: make schema"
    )
    assert json.loads((root / "config/schema.json").read_text()) == json.loads(json.dumps(schema())), (
        "config/schema.json is out of date: make schema"
    )


def pins(lines: list[str]) -> dict[str, str]:
    found = (re.fullmatch(r"\s*-?\s*([\w.-]+)==([\w.]+)\s*", line) for line in lines)
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def test_the_lock_is_plain_and_the_environments_agree_with_it(root):
    lock_lines = (root / "requirements.txt").read_text().splitlines()
    lock = pins(lock_lines)
    assert len(lock) == len(lock_lines), "every line must be a plain pin: name==version"
    conda = pins((root / "environment.yml").read_text().splitlines())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *extras["pipeline"], *extras["track"], *extras["export"], *extras["dev"]]
    names = {re.match(r"[\w.-]+", entry).group().lower().replace("_", "-") for entry in needed}
    # On GPU machines alone: it has no build for CPUs on the package index.
    assert conda.pop("torchvision") and extras["gpu"]
    assert set(conda) == names
    assert {name: lock[name] for name in names} == conda
    assert extras["official"][0] in (root / "environment.yml").read_text()
    # In an environment of its own, with the same versions of what both have.
    site = pins((root / "docs/requirements.txt").read_text().splitlines())
    assert {re.match(r"[\w-]+", entry).group() for entry in extras["docs"]} <= site.keys()
    assert {name: site[name] for name in site.keys() & lock.keys()} == {
        name: lock[name] for name in site.keys() & lock.keys()
    }
