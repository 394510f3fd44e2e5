"""Claims: verdicts from real runs, what was not run, and the refusal of results from elsewhere."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hodor import attention
from hodor.errors import HodorError
from hodor.reporting.alphas import learned_alphas, starting_alphas
from hodor.reporting.claims import claims, judge
from hodor.reporting.readable import MISSING
from hodor.reporting.runs import read_run
from hodor.reporting.samples import sample
from hodor.scoring.statistics import Bootstrap, compare

VAL, TEST_DEV, YT19 = "davis2017-val", "davis2017-test-dev", "ytvos2019-val"
OUT = Path("results/tiny")
WORLD = "The verdict is about the generated world."
# What a page may rely on.
KEYS = {"id", "claim", "kind", "benchmark", "metric", "rows", "verdict", "effect", "interval", "probability"}
KEYS |= {"sequences", "seeds", "reason", "evidence", "source", "note"}


def claim(*rows: str, benchmark: str | None = VAL, kind: str = "better", without: str | None = None) -> dict:
    about = {"id": "-".join([kind, *rows]), "claim": f"{rows[0]} is good.", "source": "poster", "note": "mind this"}
    return about | {"kind": kind, "benchmark": benchmark, "rows": list(rows), "without": without}


def settings(project, *stated: dict, fewest: int = 3, **changed) -> dict:
    judgement = {"on_par": 0.5, "fewest_sequences": fewest}
    return project.settings("claims") | {"claims": stated, "rule": judgement, "evidence": WORLD} | changed


def make(project, *stated: dict, **changed) -> dict:
    claims({"settings": settings(project, *stated, **changed)}, project.runs, OUT)
    return json.loads((OUT / "claims.json").read_text())


def page() -> str:
    return (OUT / "claims.md").read_text()


def test_a_claim_about_two_rows(project):
    made = make(project, claim("hodor-soft-coco", "copy-first-mask"), claim("copy-first-mask", "hodor-soft-coco"))
    assert made["scale"] == "tiny" and made["seeds"] == [0] and (made["resamples"], made["bootstrap_seed"]) == (1000, 0)
    assert made["statement"].endswith(WORLD) and "say nothing about the paper's numbers" in made["statement"]
    supported, contradicted = made["claims"]
    assert set(supported) == KEYS
    assert (supported["verdict"], contradicted["verdict"]) == ("supported", "contradicted")
    runs = [read_run(project.run(row)) for row in ("hodor-soft-coco", "copy-first-mask")]
    expected = compare(*(sample([run], VAL) for run in runs), Bootstrap(1000, 0))
    ours, theirs = (100 * run.predictions[VAL].overall["J&F-Mean"] for run in runs)
    assert supported["effect"] == pytest.approx(ours - theirs, abs=1e-4)
    assert supported["interval"] == pytest.approx([expected.low, expected.high], abs=1e-4) and expected.low > 0
    assert (supported["probability"], contradicted["probability"]) == (1.0, 0.0)
    assert (supported["sequences"], supported["seeds"], supported["metric"]) == (3, 1, "J&F")
    assert supported["evidence"] == WORLD and "n = 1" in supported["reason"]
    assert made["manifests"]["hodor-soft-coco"] == ["runs/tiny/hodor-soft-coco/seed0/manifest.json"]
    assert "abc123" in made["provenance"]["commit"] and "1,000 resamples" in made["provenance"]["intervals"]


def test_the_page_says_what_the_verdicts_are_about_before_it_gives_them(project):
    soft = claim("hodor-soft-coco", "copy-first-mask")
    made = make(project, soft, claim("hodor-soft-coco", "hodor-hard-coco"))
    text = page()
    assert (
        0 < text.index(WORLD) < text.index("**supported**") < text.index("## Not run") < text.index("hodor-hard-coco")
    )
    (line,) = [line for line in text.splitlines() if "**supported**" in line]
    low, high = made["claims"][0]["interval"]
    assert f"| +{made['claims'][0]['effect']:.1f} | [{low:+.1f}, {high:+.1f}] | 1.00 | 3 | 1 |" in line
    assert "hodor-soft-coco vs copy-first-mask" in line and "mind this" in line and "DAVIS-2017 val, J&F" in line
    assert "1,000 resamples, generator seed 0" in text and "runs/tiny/copy-first-mask/seed0/manifest.json" in text
    make(project, claim("hodor-soft-coco", "hodor-hard-coco"))
    assert "No claim was tested." in page()


def test_what_was_not_run_says_why(project):
    made = make(
        project,
        claim("hodor-soft-coco", "hodor-hard-coco"),
        claim("hodor-soft-coco", "copy-first-mask", benchmark=YT19),
        claim("hodor-soft-coco", "copy-first-mask", benchmark=TEST_DEV),
        claim("hodor-hard-coco", benchmark=None, kind="alphas-move"),
    )
    hard, youtube, test_dev, alphas = made["claims"]
    for entry in (hard, youtube, test_dev, alphas):
        assert entry["verdict"] == "not run" and (entry["sequences"], entry["seeds"]) == (0, 0)
        assert [entry[key] for key in ("effect", "interval", "probability")] == [None] * 3
    assert "hodor-hard-coco" in hard["reason"] and "no such benchmark" in youtube["reason"] and youtube["metric"] == "G"
    assert (alphas["metric"], alphas["benchmark"]) == ("alpha", None)
    # One line for what several benchmarks have in common.
    assert "| YouTube-VOS 2019 val, G; DAVIS-2017 test-dev, J&F | this scale has no such benchmark |" in page()


def test_few_sequences_and_rows_trained_on_other_data_decide_nothing(project):
    rows = ("hodor-soft-coco", "copy-first-mask")
    (few,) = make(project, claim(*rows), fewest=4)["claims"]
    (other,) = make(project, claim(*rows, without="trained on other videos"))["claims"]
    for entry, reason in ((few, "3 sequences are fewer than 4"), (other, "trained on other videos")):
        assert entry["verdict"] == "undecided" and reason in entry["reason"]
        assert entry["effect"] > 0 and entry["interval"][0] > 0


def test_a_servers_number_alone_decides_nothing(project):
    runs = {row: read_run(project.run(row)) for row in ("hodor-soft-coco", "copy-first-mask")}

    def served(row: str, **overall: float) -> None:
        (prediction,) = runs[row].predictions.values()
        prediction = replace(prediction, benchmark=YT19, overall=overall, objects={})
        runs[row] = replace(runs[row], predictions={YT19: prediction})

    stated = claim("hodor-soft-coco", "copy-first-mask", benchmark=YT19)
    given = settings(project, stated, benchmarks=[YT19])

    def found() -> dict:
        return {(row, 0): run for row, run in runs.items()}

    for row, value in (("hodor-soft-coco", 0.7), ("copy-first-mask", 0.5)):
        served(row, G=value)
    verdict = judge(given, stated, found())
    assert (verdict.verdict, verdict.interval) == ("undecided", None) and verdict.effect == pytest.approx(20.0)
    # A server that has not answered yet.
    for answer in ({}, {"G": float("nan")}):
        served("copy-first-mask", **answer)
        verdict = judge(given, stated, found())
        assert verdict.verdict == "not run" and "copy-first-mask" in verdict.reason


def test_several_seeds(empty_project):
    empty_project.seeds = [0, 1, 2]
    empty_project.add("hodor-soft-coco", "soft", shift=1)
    empty_project.add("copy-first-mask", tables=["extended"], shift=6)
    alphas = claim("hodor-soft-coco", benchmark=None, kind="alphas-move")
    rows, moved = make(empty_project, claim("hodor-soft-coco", "copy-first-mask"), alphas)["claims"]
    assert (rows["verdict"], rows["seeds"]) == ("supported", 3) and "n = 1" not in rows["reason"]
    values = np.stack([starting_alphas(4) + [[0.25], [0.5]] + 0.05 * seed for seed in range(3)])
    effect = np.sqrt(np.mean((values.mean(0) - starting_alphas(4)) ** 2))
    assert (moved["verdict"], moved["metric"], moved["seeds"]) == ("supported", "alpha", 3)
    assert moved["effect"] == pytest.approx(effect, abs=1e-4)
    assert moved["interval"] == pytest.approx([effect - 0.05, effect + 0.05], abs=1e-4)
    assert f"| weights | **supported** | +{effect:.3f} |" in page() and f"| {MISSING} | {MISSING} | 3 |" in page()


def test_alphas_are_those_of_the_layers_in_their_order(project):
    (found,) = learned_alphas([read_run(project.run("hodor-soft-coco"))])
    assert found == pytest.approx(np.array([[32.25, 16.25, 8.25, 4.25], [32.5, 16.5, 8.5, 4.5]]))
    assert starting_alphas(8).tolist() == attention.initial_alpha(8)
    # Eleven layers: by number, not by text.
    run = read_run(project.run("hodor-soft-coco"))
    name = "network.encoder.layers.{}.cross_attention.alpha"
    save_file(
        {name.format(layer): np.full(4, layer, np.float32) for layer in range(11)}, run.folder / "model.safetensors"
    )
    assert learned_alphas([run])[0, :, 0].tolist() == list(range(11))


def test_weights_without_alphas_and_broken_weights_are_named(project):
    run = read_run(project.run("hodor-none-coco"))
    with pytest.raises(HodorError, match="hodor-none-coco/seed0/model.safetensors: holds no alphas"):
        learned_alphas([run])
    (run.folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(HodorError, match="model.safetensors: broken model file"):
        learned_alphas([run])


def test_results_of_other_settings_are_refused(project):
    project.stamps[f"hodor-soft-coco/seed0/{VAL}/score"] = "0" * 64
    with pytest.raises(HodorError, match="other settings or other code") as error:
        make(project, claim("hodor-soft-coco", "copy-first-mask"))
    assert str(error.value).endswith("snakemake --cores all --config scale=tiny -- results/claims.json")
    assert not OUT.exists()
