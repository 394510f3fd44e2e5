"""The configuration: what is in the repository is valid, and every fault is named with its key and what is allowed."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from hodor.config import loading as config
from hodor.config.benchmarks import BENCHMARKS
from hodor.config.claims import BENCHMARKS as CLAIM_BENCHMARKS
from hodor.config.datasets import ARCHIVES, EDITIONS, SPLITS, WEIGHT_SETS
from hodor.config.json_schema import schema
from hodor.config.schema import RULES
from hodor.data import coco, davis, still_images, youtube_vos
from hodor.errors import HodorError

SCALES = ["mini", "paper", "subset", "tiny"]


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """A copy of the settings files, to be spoilt."""
    return Path(shutil.copytree(root / "config", tmp_path / "config"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def message(folder: Path, overrides: dict | None = None) -> str:
    with pytest.raises(HodorError) as error:
        config.load(folder, overrides)
    return str(error.value)


@pytest.mark.parametrize("scale", SCALES)
def test_every_scale_is_valid(root, scale):
    loaded = config.load(root / "config", {"scale": scale})
    assert loaded.scale.name == scale
    extended = {"hodor-soft-cyclic-detached", "hodor-soft-dense"}  # trained, and in neither table of the paper
    assert extended <= set(loaded.rows) and not extended & set(loaded.selected)
    assert {"hodor-soft-cyclic", "copy-first-mask"} <= set(loaded.selected)
    assert loaded.options["hodor-hard-coco"]["attention"] == "hard"


def test_the_folder_holds_these_scales(root):
    assert config.scale_names(root / "config") == SCALES


def test_default_scale_is_mini(root):
    assert config.load(root / "config").scale.name == "mini"


def test_paper_scale_is_the_published_network(root):
    options = config.load(root / "config", {"scale": "paper"}).options["hodor-soft-coco"]
    published = config.options_class("hodor")().model_dump(mode="json")
    assert options == published | {"attention": "soft", "weights": "swin-tiny-mask-rcnn-3x"}
    for method in ("stm", "kmn", "stcn"):
        published = config.options_class(method)().model_dump(mode="json")
        assert config.load(root / "config", {"scale": "paper"}).options[method] == published | {
            "weights": "resnet-imagenet"
        }


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
    found = {"coco": coco.SPLITS, "davis": davis.SPLITS, "davis2016": davis.SPLITS_2016}
    found |= {"youtube-vos": (*youtube_vos.SPLITS, *youtube_vos.PARTS)}
    found |= {name: tuple(splits) for name, splits in still_images.LAYOUTS.items()}
    assert {name: SPLITS[name] for name in found} == found
    assert SPLITS.keys() == ARCHIVES.keys() - WEIGHT_SETS.keys()


def test_no_row_trains_on_val_videos(root):
    for scale in SCALES:
        loaded = config.load(root / "config", {"scale": scale})
        for row in loaded.rows:
            stage = loaded.stage(row)
            for source in stage.sources if stage else ():
                videos = source.dataset.startswith(("davis", "youtube-vos"))
                assert source.split in ("train", "train-without-holdout") or not videos


def test_a_row_is_not_scored_on_a_holdout_that_it_was_trained_on(root):
    loaded = config.load(root / "config", {"scale": "paper"})
    scored = {row for row in loaded.rows if "ytvos-holdout" in loaded.benchmarks(row)}
    trained = {row for row in loaded.rows if "youtube-vos/train" in loaded.trained_on(row)}
    assert trained - scored == trained - {"hodor-soft-cyclic-holdout"} >= {"hodor-soft-cyclic", "hodor-soft-dense"}
    released = {row for row, entry in loaded.rows.items() if entry.weights}  # trained on what their authors had
    assert scored == set(loaded.rows) - trained - released | {"hodor-soft-cyclic-holdout"}
    assert "youtube-vos/train-without-holdout" in loaded.trained_on("hodor-soft-cyclic-holdout")


def test_servers_have_the_truth_of_official_editions_alone(root):
    secret = ("davis2017-test-dev", "ytvos2018-val", "ytvos2019-val")
    assert config.load(root / "config", {"scale": "paper"}).secret() == secret
    assert config.load(root / "config", {"scale": "mini"}).secret() == ()


def test_an_unknown_scale(folder):
    assert message(folder, {"scale": "minni"}) == (
        "config/config.yaml: scale: 'minni' is none of mini, paper, subset, tiny"
    )


def test_an_unknown_key_of_the_command_line(folder):
    assert "--config scael: unknown key, 'scael' is none of scale, rows" in message(folder, {"scael": "mini"})


def test_an_unknown_key_in_a_stage_is_named_with_the_nearest(folder):
    edit(folder / "scales/mini.yaml", "    learning_rate:", "    learning_rat:")
    text = message(folder)
    assert "config/scales/mini.yaml: stages.images.learning_rat: unknown key" in text
    assert "nearest: learning_rate" in text
    assert "config/scales/mini.yaml: stages.images.learning_rate: missing" in text


def test_a_value_out_of_range_is_shown(folder):
    edit(folder / "scales/mini.yaml", "threads: 1", "threads: 0")
    assert "config/scales/mini.yaml: threads: " in message(folder)
    assert "(given: 0)" in message(folder)


def test_allowed_values_are_listed(folder):
    edit(folder / "scales/mini.yaml", "device: cpu", "device: gpu")
    assert message(folder) == "config/scales/mini.yaml: device: 'gpu' is none of cpu or cuda"


def test_wrong_method_options_are_named_with_row_and_file(folder):
    edit(folder / "rows.yaml", "options: {attention: none}", "options: {attention: non}")
    text = message(folder)
    assert "config/rows.yaml: hodor-none-coco.options with config/scales/mini.yaml: methods.hodor: attention" in text
    assert "'non' is none of none, hard, soft" in text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("method: hodor", "method: hodr", "hodor-none-coco.method: 'hodr' is none of"),
        ("stage: images", "stage: image", "hodor-none-coco.stage: 'image' is none of images, cyclic"),
        (
            "init: hodor-none-coco",
            "init: hodor-non-coco",
            "hodor-none-cyclic.init: 'hodor-non-coco' is none of",
        ),
        ("init: hodor-none-coco", "init: hodor-none-cyclic", "start from each other in a cycle"),
        (
            "tables: [ablation]",
            "tables: [ablations]",
            "systems.hodor-none-coco.tables.0: 'ablations' is none of",
        ),
        ("    label: HODOR, no masking\n", "", "systems.hodor-none-coco.label: missing"),
        ("  hodor-hard-coco:", "  hodor-none-coco:", "key 'hodor-none-coco' is given twice"),
    ],
)
def test_a_faulty_row(folder, old, new, expected):
    edit(folder / "rows.yaml", old, new)
    text = message(folder)
    assert text.startswith("config/rows.yaml") and expected in text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("edition: generated", "edition: official", "`generated` must be given for edition `generated`"),
        (
            "datasets: [coco, davis, youtube-vos]",
            "datasets: [coco, youtube-vos]",
            "is none of coco, youtube-vos",
        ),
        (
            "benchmarks: [davis2017-val, davis2017-test-dev, ytvos2019-val]",
            "benchmarks: [davis2017-vla]",
            "benchmarks.0: 'davis2017-vla' is none of",
        ),
        ("davis2017-test-dev, ytvos2019-val]", "davis2017-val]", "given twice"),
        ("split: train2017", "split: trian2017", "stages.images.sources: coco: 'trian2017' is none of train2017"),
        ("learning_rate: ", "learning_rate: .inf  # ", "learning_rate"),
        ("name: mini", "name: maxi", "must be that of the file, `mini`"),
        ("name: mini", "name: [mini", "config/scales/mini.yaml, line"),
    ],
)
def test_a_faulty_scale(folder, old, new, expected):
    edit(folder / "scales/mini.yaml", old, new)
    assert expected in message(folder)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    kind: better\n", "    kind: beter\n", "claims.soft-over-none-coco.kind: 'beter' is none of better"),
        ("    kind: better\n", "    kin: better\n", "claims.soft-over-none-coco.kin: unknown key"),
        (
            "rows: [hodor-soft-coco, hodor-none-coco]",
            "rows: [hodor-soft-coco, hodor-non-coco]",
            "nearest: hodor-none-coco",
        ),
        ("rows: [hodor-soft-coco, hodor-none-coco]", "rows: [stm, stm]", "compares two different rows"),
        ("benchmarks: [davis2017-val]", "benchmarks: []", "compares two different rows on one benchmark or more"),
        (
            "benchmarks: [davis2017-val]",
            "benchmarks: [davis-val]",
            "benchmarks.0: 'davis-val' is none of davis2016-val",
        ),
        ("    rows: [hodor-soft-coco]\n", "    rows: [hodor-hard-coco]\n", "hodor-hard-coco has no alphas"),
        ("    rows: [hodor-soft-coco]\n", "    rows: [hodor-soft-coco, stm]\n", "about one row and no benchmark"),
        (
            "stages: [cyclic, cyclic-holdout, dense]",
            "stages: [cyclc]",
            "without_verdict[0].stages: 'cyclc' is none of cyclic, cyclic-holdout, dense",
        ),
        ("  official: Official", "  offical: Official", "evidence.offical"),
        ("  official: Official data,", "  subst: Official data,", "evidence"),
        ("resamples: 10000", "resamples: 1", "bootstrap.resamples"),
        ("  soft-over-none-coco:", "  Soft over none:", "claims.Soft over none"),
        ("    source: poster, table 1\n", "", "claims.soft-over-none-coco.source: missing"),
    ],
)
def test_faulty_claims(folder, old, new, expected):
    edit(folder / "claims.yaml", old, new)
    text = message(folder)
    assert text.startswith("config/claims.yaml: ") and expected in text


def test_claims_cover_the_benchmarks_that_there_are(root):
    assert set(BENCHMARKS) <= set(CLAIM_BENCHMARKS)
    claims = config.load(root / "config").claims
    ids = [entry["id"] for entry in claims.entries()]
    assert len(set(ids)) == len(ids) > 30 and "soft-over-none-coco" in ids and "hodor-over-stm-ytvos-holdout" in ids
    assert claims.rows() <= set(config.load(root / "config").selected), "`rows: [main]` decides every claim"


@pytest.mark.parametrize("file", ["config.yaml", "rows.yaml", "claims.yaml", "scales/mini.yaml"])
def test_a_missing_or_empty_file(folder, file):
    if file == "scales/mini.yaml":
        (folder / file).unlink()
        assert "'mini' is none of paper, subset, tiny" in message(folder)
    elif file in ("rows.yaml", "claims.yaml"):
        (folder / file).unlink()
        assert message(folder) == f"config/{file}: no such file"
    else:
        (folder / file).write_text("")
        assert config.load(folder).scale.name == "mini"


@pytest.mark.parametrize("rows", ["hodor-soft-coco, copy-first-mask", ["copy-first-mask", "hodor-soft-coco"]])
def test_rows_are_selected_in_the_order_of_the_file(root, rows):
    assert config.load(root / "config", {"rows": rows}).selected == ("hodor-soft-coco", "copy-first-mask")


def test_an_unknown_row_is_named(root):
    text = message(root / "config", {"rows": "hodor-soft-cocos"})
    assert "rows: 'hodor-soft-cocos' is none of" in text and "nearest: hodor-soft-coco" in text


def test_parents_are_needed_first(root):
    loaded = config.load(root / "config", {"rows": "hodor-soft-cyclic"})
    assert loaded.needed() == ("hodor-soft-coco", "hodor-soft-cyclic")


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, (0,)), ([0, 2], (0, 2)), ("0,1", (0, 1)), (3, (3,)), ("3", (3,)), ("null", (0,))],
)
def test_seeds(root, given, expected):
    assert config.load(root / "config", {"scale": "tiny", "seeds": given}).seeds == expected


@pytest.mark.parametrize("given", [[], [0, 0], [-1], "a", [2**64]])
def test_wrong_seeds(root, given):
    assert "config/config.yaml: seeds" in message(root / "config", {"seeds": given})


def test_overrides_change_the_scale_and_are_checked(root):
    loaded = config.load(root / "config", {"overrides": {"stages.images.steps": 7, "threads": "2"}})
    assert loaded.stage("hodor-soft-coco").steps == 7 and loaded.scale.threads == 2
    text = message(root / "config", {"overrides": {"stages.image.steps": 7}})
    assert "overrides.stages.image.steps" in text and "'image' is none of images, cyclic" in text
    text = message(root / "config", {"overrides": {"stages.images.step": 7}})
    assert "config/scales/mini.yaml (with the overrides): stages.images.step: unknown key" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("methods.hodor.backbone_depths", value) for value in ([0, 1, 1, 1], [-1, 1, 1, 1], [10**9, 1, 1, 1])),
        *(("methods.hodor.encoder_layers", value) for value in (0, 10**6)),
        ("methods.hodor.background_grid", [0, 3]),
        ("methods.stm.memory_depths", [3, -4, 6]),
        *(("stages.images.learning_rate", value) for value in (-1, 0, 1e30, "inf", "nan")),
        *(("stages.images.batch", value) for value in (0, -2, 10**12)),
        ("stages.images.decay_steps", [-5]),
        ("stages.images.steps", 10**12),
        ("inference.short_side", 10**10),
        ("threads", 10**6),
        ("generated.seed", 2**64),
    ],
)
def test_absurd_numbers_are_refused(root, key, value):
    given = {"scale": "tiny", "rows": "all", "overrides": {key: value}}
    assert key.rpartition(".")[2] in message(root / "config", given)


def test_null_on_the_command_line_is_null(root):
    """Snakemake hands over every scalar as text."""
    loaded = config.load(root / "config", {"scale": "paper", "overrides": {"methods.hodor.weights": "null"}})
    assert loaded.options["hodor-soft-coco"]["weights"] is None


def test_reserved_names_are_those_of_the_rules(root):
    files = [root / "Snakefile", *(root / "workflow" / "rules").glob("*.smk")]
    names = {name for file in files for name in re.findall(r"^rule (\w+):", file.read_text(), re.MULTILINE)}
    assert set(RULES) == names - {"all"}


@pytest.mark.parametrize("id", ["../x", "a b", "a;b", "a`b`", "-a", "A", "train", "tables", "main", "ablation"])
def test_row_ids_are_safe_in_commands_and_paths(folder, id):
    content = yaml.safe_load((folder / "rows.yaml").read_text())
    content["systems"][id] = content["systems"]["copy-first-mask"]
    (folder / "rows.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
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


def test_main_holds_nothing_that_starts_from_an_extended_training(folder):
    edit(
        folder / "rows.yaml",
        "options: {attention: soft, zero_alpha: true}\n    stage: null\n    init: hodor-soft-coco\n",
        "options: {attention: soft, zero_alpha: true}\n    stage: null\n    init: hodor-soft-dense\n",
    )
    assert "hodor-soft-coco-alpha0" not in config.load(folder).selected


def test_inference_rules_are_for_what_they_name(tmp_path, root):
    folder = tmp_path / "config"
    shutil.copytree(root / "config", folder)
    rules = """
inference_for:
  - {stages: [cyclic], set: {short_side: 576, long_side: 1200}}
  - {methods: [hodor], benchmarks: [davis2017-test-dev], set: {temporal_window: 5}}
  - {rows: [hodor-none-cyclic], set: {short_side: 600}}
"""
    path = folder / "scales" / "mini.yaml"
    path.write_text(re.sub(r"inference_for: .*\n", "", path.read_text()) + rules)
    loaded = config.load(folder)
    assert loaded.inference("hodor-soft-coco", "davis2017-val") == loaded.scale.inference
    changed = loaded.inference("hodor-soft-cyclic", "davis2017-val")
    assert (changed.short_side, changed.long_side, changed.temporal_window) == (576, 1200, 7)
    assert loaded.inference("hodor-soft-coco", "davis2017-test-dev").temporal_window == 5
    assert loaded.inference("copy-first-mask", "davis2017-test-dev").temporal_window == 7
    assert loaded.inference("hodor-none-cyclic", "davis2017-val").short_side == 600


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("{set: {short_sid: 5}}", "inference_for[0].set.short_sid"),
        ("{set: {short_side: 5}}", "inference_for[0].set.short_side"),
        ("{stages: [cyclc], set: {short_side: 64}}", "inference_for[0].stages: 'cyclc' is none of"),
        ("{benchmarks: [davis], set: {short_side: 64}}", "inference_for[0].benchmarks: 'davis' is none of"),
        ("{rows: [hodor-soft], set: {short_side: 64}}", "inference_for[0].rows: 'hodor-soft' is none of"),
        ("{methods: [hodr], set: {short_side: 64}}", "inference_for[0].methods: 'hodr' is none of"),
    ],
)
def test_wrong_inference_rules(tmp_path, root, rule, expected):
    folder = tmp_path / "config"
    shutil.copytree(root / "config", folder)
    path = folder / "scales" / "mini.yaml"
    path.write_text(re.sub(r"inference_for: .*\n", "", path.read_text()) + f"\ninference_for: [{rule}]\n")
    assert expected in message(folder)


def test_mirror_is_a_url_or_a_folder(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "archives").mkdir()
    assert config.load(root / "config", {"mirror": "archives"}).mirror == str(tmp_path / "archives")
    assert config.load(root / "config", {"mirror": "https://example.org/m"}).mirror == "https://example.org/m"
    assert config.load(root / "config", {"mirror": "null"}).mirror is None
    assert "mirror: 'nowhere' is neither a folder nor a URL" in message(root / "config", {"mirror": "nowhere"})


def test_reading_settings_imports_nothing_heavy(root):
    code = (
        "import sys; from hodor.workflow import set_up; from hodor import stamps, records; from hodor.config import loading as config; "
        f"config.load({str(root / 'config')!r}); "
        "print(*{'torch', 'cv2', 'pandas', 'matplotlib', 'skimage', 'papermill'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_schema_file_is_that_of_the_models(root):
    assert json.loads((root / "config/schema.json").read_text()) == json.loads(json.dumps(schema())), (
        "config/schema.json is out of date: make schema"
    )


def test_dvc_loops_over_the_rows(root):
    content = yaml.safe_load((root / "dvc.yaml").read_text())
    assert content["vars"] == ["config/config.yaml", "config/rows.yaml"]
    assert content["stages"]["row"]["foreach"] == "${systems}"
    assert list(yaml.safe_load((root / "config/rows.yaml").read_text())) == ["systems"]


def test_editions_and_data_sets_are_those_of_the_sources(root):
    scale = schema()["$defs"]["Scale"]["properties"]
    assert scale["edition"]["enum"] == list(EDITIONS)
    assert scale["datasets"]["items"]["enum"] == list(ARCHIVES)


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
    needed = [*project["dependencies"], *extras["pipeline"], *extras["track"], *extras["dev"]]
    names = {re.match(r"[\w.-]+", entry).group().lower().replace("_", "-") for entry in needed}
    # On GPU machines alone: it has no build for CPUs on the package index.
    assert conda.pop("torchvision") and extras["gpu"]
    assert set(conda) == names
    assert {name: lock[name] for name in names} == conda
    assert extras["official"][0] in (root / "environment.yml").read_text()


def test_every_row_trained_on_video_segments_at_the_size_of_its_training(root):
    paper = config.load(root / "config", {"scale": "paper", "rows": "all"})
    rows = {id for id, row in paper.rows.items() if row.stage and paper.stage(id).kind.endswith("video")}
    assert "hodor-soft-cyclic-holdout" in rows
    assert {paper.inference(row, "davis2017-val").short_side for row in rows} == {576}
