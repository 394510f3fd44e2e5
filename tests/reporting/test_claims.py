"""Claims: the rule case by case, verdicts from real runs, and how pages show them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hodor import attention
from hodor.errors import HodorError
from hodor.provenance import write_json_atomic
from hodor.reporting.claims import (
    CONTRADICTED,
    ON_PAR,
    SUPPORTED,
    UNDECIDED,
    VERDICTS,
    claims,
    judge,
    judge_alphas,
    judge_rows,
    learned_alphas,
    read_claims,
)
from hodor.reporting.html import claims_html
from hodor.reporting.runs import read_run, sample
from hodor.scoring.statistics import Bootstrap, Comparison, compare
from tests.refused import refused

VAL, TEST_DEV, YT19 = "davis2017-val", "davis2017-test-dev", "ytvos2019-val"
OUT = Path("results/tiny")
WORLD = "The verdict is about the generated data."
RULE = {"on_par": 0.5, "fewest_sequences": 10, "fewest_seeds": 3}
STARTS = np.array([32.0, 16, 8, 4])
# The keys that pages rely on.
KEYS = {"id", "claim", "kind", "benchmark", "metric", "rows", "verdict", "effect", "interval", "probability"}
KEYS |= {"sequences", "seeds", "reason", "evidence", "source", "note"}


def found(low: float, high: float, sequences: int = 30, seeds: int = 3) -> Comparison:
    return Comparison((low + high) / 2, low, high, 0.9, seeds, sequences)


@pytest.mark.parametrize(
    ("low", "high", "better", "at_least"),
    [
        (0.2, 3.0, SUPPORTED, SUPPORTED),
        (-3.0, -0.2, CONTRADICTED, CONTRADICTED),
        (-1.0, 2.0, UNDECIDED, UNDECIDED),
        (-0.3, 0.6, UNDECIDED, UNDECIDED),
        (-0.5, 0.5, ON_PAR, ON_PAR),
        # Too small to matter: above and below 0 all the same, unless on par is what is claimed.
        (0.1, 0.4, SUPPORTED, ON_PAR),
        (-0.4, -0.1, CONTRADICTED, ON_PAR),
        # The ends themselves: 0 is not above 0.
        (0.0, 3.0, UNDECIDED, UNDECIDED),
        (-3.0, 0.0, UNDECIDED, UNDECIDED),
    ],
)
def test_the_rule_for_two_rows(low, high, better, at_least):
    verdicts = [judge_rows(kind, found(low, high), RULE).verdict for kind in ("better", "at-least")]
    assert verdicts == [better, at_least]


@pytest.mark.parametrize(
    ("sequences", "seeds", "reason"),
    [(9, 3, "9 sequences are fewer than 10"), (30, 2, "2 seeds"), (30, 1, "one seed"), (9, 1, "one seed.*9 sequences")],
)
def test_few_sequences_or_seeds_decide_nothing(sequences, seeds, reason):
    verdict = judge_rows("better", found(2, 4, sequences, seeds), RULE)
    assert (verdict.verdict, verdict.effect, verdict.interval) == (UNDECIDED, 3.0, (2, 4))
    assert re.search(reason, verdict.reason)


def test_numbers_are_rounded_in_json_only():
    fields = judge_rows("better", found(0.12345678, 3, sequences=10), RULE).as_json()
    assert fields["interval"] == [0.1235, 3] and fields["probability"] == 0.9 and fields["verdict"] == SUPPORTED


@pytest.mark.parametrize(
    ("shifts", "expected", "effect", "reason"),
    [
        ((0.9, 1.0, 1.1), SUPPORTED, 1.0, "8 of 8 alphas"),
        ((-0.9, -1.0, -1.1), SUPPORTED, 1.0, "8 of 8 alphas"),  # a distance, downwards too
        ((-1.0, 0.2, 1.1), UNDECIDED, 0.1, "0 of 8 alphas"),
        ((1.0, 1.1), UNDECIDED, 1.05, "2 seeds.*8 of 8 alphas"),
        ((5.0,), UNDECIDED, 5.0, "n = 1"),
    ],
)
def test_the_rule_for_alphas(shifts, expected, effect, reason):
    """Supported: every alpha moved by more than the spread over seeds."""
    verdict = judge_alphas(np.stack([np.tile(STARTS, (2, 1)) + shift for shift in shifts]), STARTS, RULE)
    assert (verdict.verdict, verdict.seeds) == (expected, len(shifts)) and re.search(reason, verdict.reason)
    assert verdict.effect == pytest.approx(effect)
    if len(shifts) == 1:
        assert verdict.interval is None
    else:
        spread = np.std(shifts, ddof=1)
        assert verdict.interval == pytest.approx((effect - spread, effect + spread))


def claim(*rows: str, benchmark: str | None = VAL, kind: str = "better", substitutes=()) -> dict:
    about = {"id": "-".join([kind, *rows]), "claim": f"{rows[0]} is good.", "source": "poster", "note": "mind this"}
    return about | {"kind": kind, "benchmark": benchmark, "rows": list(rows), "substitutes": list(substitutes)}


def settings(project, *stated: dict, **changed) -> dict:
    rule = {"on_par": 0.5, "fewest_sequences": 3, "fewest_seeds": 1}
    return project.settings("claims") | {"claims": stated, "rule": rule, "evidence": WORLD, "absent": {}} | changed


def make(project, *stated: dict, **changed) -> dict:
    claims({"settings": settings(project, *stated, **changed)}, project.runs, OUT)
    return json.loads((OUT / "claims.json").read_text())


def page() -> str:
    """claims.md without the padding of its tables."""
    return "\n".join(" ".join(line.split()) for line in (OUT / "claims.md").read_text().splitlines())


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
    assert supported["evidence"] == WORLD
    # One resample is an interval without width, which the generator's seed places.
    found = {(run.row, 0): run for run in runs}
    few = [settings(project, bootstrap={"resamples": 1, "seed": seed}) for seed in range(5)]
    ends = [judge(given, claim("hodor-soft-coco", "copy-first-mask"), found).interval for given in few]
    assert all(low == high for low, high in ends) and len(set(ends)) > 1
    assert made["manifests"]["hodor-soft-coco"] == ["runs/tiny/hodor-soft-coco/seed0/manifest.json"]
    assert "abc123" in made["provenance"]["commit"] and "1,000 resamples" in made["provenance"]["intervals"]


def test_the_page_explains_the_verdicts_before_it_gives_them(project):
    made = make(project, claim("hodor-soft-coco", "copy-first-mask"), claim("hodor-soft-coco", "hodor-hard-coco"))
    text = page()
    order = (WORLD, "**supported**", "commit abc123", "## Not run", "hodor-hard-coco", "## Where")
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    (line,) = [line for line in text.splitlines() if "**supported**" in line]
    low, high = made["claims"][0]["interval"]
    assert f"| +{made['claims'][0]['effect']:.1f} | [{low:+.1f}, {high:+.1f}] | 1.00 | 3 | 1 |" in line
    assert "hodor-soft-coco vs copy-first-mask" in line and "mind this" in line and "DAVIS-2017 val, J&F" in line
    assert "1,000 resamples, generator seed 0" in text and "runs/tiny/copy-first-mask/seed0/manifest.json" in text
    make(project, claim("hodor-soft-coco", "hodor-hard-coco"))
    assert "No claim was tested." in page()


def test_what_was_not_run_has_a_reason(project):
    rows = ("hodor-soft-coco", "copy-first-mask")
    stated = [
        claim("hodor-soft-coco", "hodor-hard-coco"),
        claim(*rows, benchmark=YT19),
        claim(*rows, benchmark=TEST_DEV),
    ]
    made = make(project, *stated, claim("hodor-hard-coco", benchmark=None, kind="alphas-move"))
    hard, youtube, _, alphas = made["claims"]
    for entry in made["claims"]:
        assert entry["verdict"] == "not run" and (entry["sequences"], entry["seeds"]) == (0, 0)
        assert [entry[key] for key in ("effect", "interval", "probability")] == [None] * 3
    (other,) = make(project, claim(*rows, benchmark="davis2016-val"), absent={"davis2016-val": "no davis2016"})[
        "claims"
    ]
    assert (other["verdict"], other["reason"]) == ("not run", "no davis2016")
    make(project, *stated)
    assert "hodor-hard-coco" in hard["reason"] and "no such benchmark" in youtube["reason"] and youtube["metric"] == "G"
    assert (alphas["metric"], alphas["benchmark"]) == ("alpha", None)
    # One line for what several benchmarks have in common.
    assert "| YouTube-VOS 2019 val, G; DAVIS-2017 test-dev, J&F | this scale has no such benchmark |" in page()


def test_a_servers_number_alone_decides_nothing(project):
    stated = claim("hodor-soft-coco", "copy-first-mask", benchmark=YT19)
    given = settings(project, stated, benchmarks=[YT19])

    def verdict(ours: dict, theirs: dict):
        runs = {}
        for row, overall in zip(stated["rows"], (ours, theirs), strict=True):
            run = read_run(project.run(row))
            prediction = run.predictions[VAL]
            prediction = replace(prediction, benchmark=YT19, overall=overall, objects=prediction.objects[:0])
            runs[row, 0] = replace(run, predictions={YT19: prediction})
        return judge(given, stated, runs)

    found = verdict({"G": 0.7}, {"G": 0.5})
    assert (found.verdict, found.interval) == ("undecided", None) and found.effect == pytest.approx(20.0)
    assert (found.sequences, found.seeds, found.probability) == (0, 1, None) and "server" in found.reason
    for unanswered in ({}, {"G": float("nan")}):
        found = verdict({"G": 0.7}, unanswered)
        assert found.verdict == "not run" and "copy-first-mask" in found.reason


def test_several_seeds(empty_project):
    empty_project.seeds = [0, 1, 2]
    empty_project.add("hodor-soft-coco", "soft", shift=1)
    empty_project.add("copy-first-mask", tables=["extended"], shift=6)
    alphas = claim("hodor-soft-coco", benchmark=None, kind="alphas-move")
    rows, moved = make(empty_project, claim("hodor-soft-coco", "copy-first-mask"), alphas)["claims"]
    assert (rows["verdict"], rows["seeds"]) == ("supported", 3)
    values = np.stack([STARTS + [[0.25], [0.5]] + 0.05 * seed for seed in range(3)])
    effect = np.sqrt(np.mean((values.mean(0) - STARTS) ** 2))
    assert (moved["verdict"], moved["metric"], moved["seeds"]) == ("supported", "alpha", 3)
    assert moved["effect"] == pytest.approx(effect, abs=1e-4)
    assert moved["interval"] == pytest.approx([effect - 0.05, effect + 0.05], abs=1e-4)
    assert f"| weights | **supported** | +{effect:.3f} |" in page() and "| – | – | 3 |" in page()


def test_alphas_are_those_of_the_layers_in_their_order(project):
    run = read_run(project.run("hodor-soft-coco"))
    assert learned_alphas([run])[0] == pytest.approx(np.array([[32.25, 16.25, 8.25, 4.25], [32.5, 16.5, 8.5, 4.5]]))
    assert attention.initial_alpha(4) == STARTS.tolist()
    # Eleven layers: by number, not by text.
    name = "network.encoder.layers.{}.cross_attention.alpha"
    layers = {name.format(layer): np.full(4, layer, np.float32) for layer in range(11)}
    save_file(layers, run.folder / "model.safetensors")
    assert learned_alphas([run])[0, :, 0].tolist() == list(range(11))
    with pytest.raises(HodorError, match="hodor-none-coco/seed0/model.safetensors: no alphas"):
        learned_alphas([read_run(project.run("hodor-none-coco"))])
    (run.folder / "model.safetensors").write_bytes(b"half")
    refused("model.safetensors: broken model file", learned_alphas, [run])


def shown(*judged: dict) -> str:
    """The HTML of claims, with single spaces."""
    content = {"statement": "s", "seeds": [0, 1], "resamples": 10_000, "claims": list(judged)}
    return " ".join(claims_html(content, "mini").split())


def test_each_verdict_is_a_line_with_effect_and_interval_that_unfolds_to_the_reason():
    about = {"claim": "a < b", "benchmark": VAL, "metric": "J&F", "rows": ["a", "b"], "evidence": "made up"}
    about |= {"effect": -1.25, "interval": [-3.0, 0.5], "probability": 0.125, "sequences": 30, "seeds": 1}
    judged = [about | {"verdict": verdict, "reason": f"because {verdict}"} for verdict in VERDICTS]
    nothing = {"effect": None, "interval": None, "probability": None, "sequences": 0, "seeds": 0}
    html = shown(*judged[:-1], judged[-1] | nothing)
    for verdict, (sign, _) in VERDICTS.items():
        name = verdict.replace(" ", "-")
        (line,) = [part for part in html.split('<details class="claim ') if part.startswith(f'{name}"')]
        summary, _, details = line.partition("</summary>")
        assert f"{sign} {verdict}</span>" in summary and "a &lt; b" in summary and "DAVIS-2017 val, J&amp;F" in summary
        assert ("−1.2 [−3.0, +0.5]" in summary) == (verdict != "not run")
        assert f"because {verdict}" in details and "made up" in details and "Rows: a, b." in details
    assert html.count("30 sequences; 1 seed; better in 12 % of the resamples") == 4
    assert "10,000 bootstrap resamples" in html and "– 1 not run</summary>" in html
    alphas = shown(about | {"verdict": "supported", "benchmark": None, "metric": "alpha", "effect": 0.1364})
    assert "weights" in alphas and "+0.136" in alphas


def test_broken_and_absent_verdicts(tmp_path):
    assert read_claims(tmp_path) is None and "results/mini/claims.json" in claims_html(None, "mini")
    write_json_atomic(tmp_path / "claims.json", {"claims": [{"verdict": "proved"}]})
    refused("claims.json.*supported", read_claims, tmp_path)
