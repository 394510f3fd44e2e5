"""The page of subset_ablation.py: scores over seeds with intervals, paired differences, verdicts, curves, costs.

Every sentence about who is better is made from the numbers. A run enters only after its chain of provenance was verified.
"""

import csv
import io
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import harness
import numpy as np
import pandas as pd
import torch
from subset_phase import BENCHMARK, Phase

from hodor.attention import initial_alpha
from hodor.config import loading as config
from hodor.data.progress import duration
from hodor.provenance import read_json, write_text_atomic
from hodor.reporting.claims import claims, learned_alphas
from hodor.reporting.figures import figure_bytes
from hodor.reporting.figures.training import training_curves
from hodor.reporting.formats import MISSING, markdown, scale_statement
from hodor.reporting.runs import Run, provenance
from hodor.scoring.statistics import Comparison, estimate
from hodor.training.optim import learning_rate

PAIRS = (
    ("hodor-soft-coco", "hodor-none-coco"),
    ("hodor-soft-coco", "hodor-hard-coco"),
    ("hodor-none-coco", "hodor-hard-coco"),
    ("hodor-soft-coco", "stm"),
    ("hodor-soft-coco", "kmn"),
    ("hodor-soft-coco", "stcn"),
    ("hodor-soft-coco", "dmn-aoa"),
)
FLOOR = "copy-first-mask"
COLUMNS = (
    "phase", "row", "seed", "steps", "J&F", "J", "F", "last_loss", "training_s", "segmentation_fps", "model_sha256",
)  # fmt: skip


def write(phases: Sequence[Phase], plan: dict, wall: float, notes: Sequence[str], folder: Path) -> Path | None:
    """Writes subset_seeds_<machine>.{md,csv} and a figure for each phase; None where nothing is finished."""
    phases = [phase for phase in phases if phase.results]
    if not phases:
        print("no run is finished yet: no page")
        return None
    if plan["device"] == "cuda":
        torch.cuda.init()  # for the machine's name
    name = f"{plan['scale']}_seeds_{harness.machine_slug()}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = _head(phases, plan)
    for phase in phases:
        parts += _section(phase)
        if figure := training_curves({f"Training on images, {phase.steps} steps": _logs(phase)}):
            picture = f"{name}_{phase.name}.svg"
            (folder / picture).write_bytes(figure_bytes(figure, "svg"))
            parts += [f"### Training, {phase.steps} steps", f"![Loss over steps]({picture})", _losses(phase)]
    parts += ["## Where the numbers come from", _origin(phases, plan, wall, notes)]
    write_text_atomic(folder / f"{name}.md", "\n\n".join(part for part in parts if part) + "\n")
    write_text_atomic(folder / f"{name}.csv", _csv(phases))
    print(f"written to {folder / name}.md")
    return folder / f"{name}.md"


def _head(phases: Sequence[Phase], plan: dict) -> list[str]:
    first = phases[0]
    scale = first.config.scale
    missing = [name for phase in phases for name in phase.missing]
    stage = scale.stages["images"]
    device = (
        "a GPU" if plan["device"] == "cuda" else f"a CPU, {plan['threads']} thread{'s' * (plan['threads'] > 1)} each"
    )
    own = config.load(first.root / "config", {"scale": scale.name}).scale
    lengths = " and ".join(str(phase.steps) for phase in phases)
    text = (
        f"Trained on {device}, for {lengths} steps of {stage.batch} clips with every row alike; the scale's own length is "
        f"{own.stages['images'].steps}. "
    )
    if plan["device"] == "cpu":
        text += "A CPU does few steps in the time there is: on a GPU the same script trains longer. "
    text += f"Frames are segmented at short side {scale.inference.short_side}"
    if scale.inference.short_side != own.inference.short_side:
        text += f" instead of the scale's {own.inference.short_side}, which is cheaper and scores lower"
    real = (
        "Real images, six real sequences, tiny trainings: not comparable to the paper. "
        if scale.name == "subset"
        else ""
    )
    return [
        f"# Attention variants over {len(plan['seeds'])} seeds: {scale.title}",
        f"**{real}{scale_statement({'scale': scale.name, 'caption': scale.caption})}**",
        f"**Partial: still to come, {len(missing)} of all runs: {', '.join(missing)}.**" if missing else "",
        f"{text}.",
    ]


def _section(phase: Phase) -> list[str]:
    compared = [(pair, found) for pair in PAIRS if (found := phase.compare(*pair))]
    floor = [((row, FLOOR), found) for row in phase.results if row != FLOOR and (found := phase.compare(row, FLOOR))]
    parts = [
        f"## {phase.steps} steps ({phase.name})",
        "J&F, J and F in points: mean over objects, then over seeds. Brackets: 95 % interval over sequences and seeds.",
        _scores(phase),
    ]
    if compared:
        parts += [
            "### Differences",
            "J&F of the first row less that of the second, in points, on the same objects of the same sequences and with "
            "the same seeds (the same clips in the same order). So few sequences and seeds make a bootstrap's interval too "
            "narrow rather than too wide.",
            _differences(phase, compared + floor),
            "### What they show",
            "\n".join(f"- {_sentence(phase, pair, found)}" for pair, found in compared),
            f"Against {phase.label(FLOOR).lower()}, which learns nothing:" if floor else "",
            "\n".join(f"- {_sentence(phase, pair, found)}" for pair, found in floor),
        ]
    return parts + _verdicts(phase)


def _scores(phase: Phase) -> str:
    head = ["system", "n", "J&F", "std over seeds", "J", "F", *(f"J&F, seed {seed}" for seed in phase.seeds)]
    lines = []
    for row, runs in phase.results.items():
        found = estimate(phase.sample(row, phase.finished(row)), phase.bootstrap)
        overall = {run.seed: run.predictions[BENCHMARK].overall for run in runs}
        means = [f"{100 * sum(o[key] for o in overall.values()) / len(overall):.1f}" for key in ("J-Mean", "F-Mean")]
        seeds = [f"{100 * overall[seed]['J&F-Mean']:.1f}" if seed in overall else MISSING for seed in phase.seeds]
        spread = MISSING if found.std is None else f"{found.std:.1f}"
        value = f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"
        lines.append([phase.label(row), str(found.seeds), value, spread, *means, *seeds])
    return markdown(pd.DataFrame(lines, columns=head))


def _differences(phase: Phase, compared: Sequence[tuple[tuple[str, str], Comparison]]) -> str:
    sequences = phase.sample(*next((row, phase.finished(row)) for row in phase.results)).sequences
    head = ["rows", "difference", "95 % interval", "P(first beats second)", "n"]
    head += [*(f"seed {seed}" for seed in phase.seeds), *sequences]
    lines = []
    for (first, second), found in compared:
        by_seed, by_sequence = phase.by_seed(first, second), phase.by_sequence(first, second)
        lines.append(
            [
                f"{first} less {second}",
                f"{found.effect:+.1f}",
                f"[{found.low:+.1f}, {found.high:+.1f}]",
                f"{found.probability:.2f}",
                str(found.seeds),
                *(f"{by_seed[seed]:+.1f}" if seed in by_seed else MISSING for seed in phase.seeds),
                *(f"{by_sequence[name]:+.1f}" for name in sequences),
            ]
        )
    return markdown(pd.DataFrame(lines, columns=head))


def _sentence(phase: Phase, pair: tuple[str, str], found: Comparison) -> str:
    differences = (list(by(*pair).values()) for by in (phase.by_seed, phase.by_sequence))
    return sentence(*(phase.label(row) for row in pair), found, *differences)


def sentence(first: str, second: str, found: Comparison, by_seed: Sequence[float], by_sequence: Sequence[float]) -> str:
    """What one comparison shows, from its numbers alone.

    Args:
        first, second: labels of the rows.
        found: the comparison in points.
        by_seed, by_sequence: the difference in each seed and on each sequence.
    """
    better = found.effect >= 0
    ahead = [sum(value > 0 if better else value < 0 for value in values) for values in (by_seed, by_sequence)]
    how = "above" if better else "below"
    where = (
        f"{how} in {ahead[0]} of {len(by_seed)} seeds and on {ahead[1]} of {len(by_sequence)} sequences; "
        f"95 % interval {found.low:+.1f} to {found.high:+.1f}"
        + (", in which no spread between trainings is" if len(by_seed) == 1 else "")
    )
    if found.low > 0 or found.high < 0:
        return (
            f"{first} scores {'higher' if better else 'lower'} than {second}: by {abs(found.effect):.1f} points, and the "
            f"interval excludes 0 ({where})."
        )
    return (
        f"No difference between {first} and {second} is shown: the mean is {abs(found.effect):.1f} points {how}, and the "
        f"interval holds 0 ({where})."
    )


def _verdicts(phase: Phase) -> list[str]:
    """The verdicts of config/claims.yaml, over the seeds that every finished row has."""
    rows = list(phase.results)
    seeds = phase.common(rows)
    if not seeds:
        return []
    stamp = phase.load(rows, seeds).contents["claims"]
    with tempfile.TemporaryDirectory() as folder:
        claims(stamp, phase.runs, Path(folder))
        content = read_json(Path(folder) / "claims.json")
    lines = [
        [
            claim["claim"],
            f"**{claim['verdict']}**",
            MISSING if claim["effect"] is None else f"{claim['effect']:+.3g}",
            MISSING if claim["interval"] is None else "[{:+.3g}, {:+.3g}]".format(*claim["interval"]),
            str(claim["seeds"]),
            ". ".join(filter(None, [claim["reason"], claim["note"]])),
        ]
        for claim in content["claims"]
        if claim["verdict"] != "not run"
    ]
    if not lines:
        return []
    table = markdown(pd.DataFrame(lines, columns=["claim", "verdict", "effect", "95 % interval", "n", "why"]))
    rule = content["rule"]
    return [
        "### Verdicts on the poster's claims",
        f"By the rule of docs/claims.md, which decides nothing from fewer than {rule['fewest_sequences']} sequences. "
        f"{content['claims'][0]['evidence'].strip()}",
        table,
        _decay(phase, seeds),
    ]


def _decay(phase: Phase, seeds: Sequence[int]) -> str:
    """How much of the way of the alphas weight decay went by itself; empty where it does not act on them."""
    row = "hodor-soft-coco"
    options = phase.config.options[row]
    stage = phase.config.stage(row)
    if row not in phase.results or not options["decay_alpha"] or stage.optimiser != "adamw":
        return ""
    alphas = learned_alphas([run for run in phase.results[row] if run.seed in seeds])
    starts = np.array(initial_alpha(alphas.shape[-1]))
    # Adam with decoupled decay: each step multiplies by this, whatever the gradient.
    decayed = starts * math.prod(1 - learning_rate(stage, step) * stage.weight_decay for step in range(stage.steps))
    alone, rest = (float(np.sqrt(np.mean(way**2))) for way in (decayed - starts, alphas.mean(0) - decayed))
    return (
        f"Weight decay by itself would have moved the alphas by {alone:.3g} (root mean square, as above); from where it "
        f"would have left them they lie {rest:.3g} away, which is what their gradients did."
    )


def _logs(phase: Phase) -> list[tuple[str, str | None, Run]]:
    return [
        (phase.label(row), phase.config.rows[row].options.get("attention"), run)
        for row, runs in phase.results.items()
        for run in runs
    ]


def _losses(phase: Phase) -> str:
    """Mean loss of the last tenth of the steps of each run."""
    lines = []
    for row, runs in phase.results.items():
        last = {run.seed: phase.last_loss(run) for run in runs if run.log}
        if last:
            seeds = [f"{last[seed]:.3f}" if seed in last else MISSING for seed in phase.seeds]
            lines.append([phase.label(row), *seeds])
    head = ["loss over the last tenth of the steps", *(f"seed {seed}" for seed in phase.seeds)]
    return markdown(pd.DataFrame(lines, columns=head))


def _origin(phases: Sequence[Phase], plan: dict, wall: float, notes: Sequence[str]) -> str:
    runs = [run for phase in phases for found in phase.results.values() for run in found]
    training = sum(run.train["time_s"] for run in runs)
    segmenting = sum(run.predictions[BENCHMARK].segment["time_s"] for run in runs)
    lines = [
        *provenance(runs, plan["seeds"], phases[0].config.claims.bootstrap.model_dump()).items(),
        ("steps", ", ".join(f"{phase.name} {phase.steps}" for phase in phases)),
        (
            "time",
            f"{duration(wall)} of wall time over all slices; trainings {duration(training)} and segmenting "
            f"{duration(segmenting)}, each summed over its runs, of which some ran side by side",
        ),
        *(("note", note) for note in notes),
        ("settings that differ from the scale's", f"`{_differing(phases)}`"),
        ("each run", f"the CSV beside this page: {len(runs)} lines"),
    ]
    return "\n".join(f"- {what}: {value}" for what, value in lines if value)


def _differing(phases: Sequence[Phase]) -> str:
    """Overrides of the stages and methods that were run."""
    own = config.load(phases[0].root / "config", {"scale": phases[0].settings["scale"]}).scale.model_dump()
    shown = {}
    for phase in phases:
        rows = [phase.config.rows[row] for row in phase.results]
        for key, value in phase.settings["overrides"].items():
            group, name, *_ = [*key.split("."), ""]
            used = {"stages": [row.stage for row in rows], "methods": [row.method for row in rows]}.get(group)
            at = own
            for part in key.split("."):
                at = at[part]
            if at != value and (used is None or name in used):
                shown.setdefault(key, []).append(value)
    return ", ".join(f"{key}: {' / '.join(map(str, dict.fromkeys(values)))}" for key, values in shown.items())


def _csv(phases: Sequence[Phase]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for phase in phases:
        for row, runs in phase.results.items():
            for run in runs:
                prediction = run.predictions[BENCHMARK]
                scores = [f"{100 * prediction.overall[key]:.4f}" for key in ("J&F-Mean", "J-Mean", "F-Mean")]
                loss = f"{phase.last_loss(run):.4f}" if run.log else ""
                cost = [run.train["time_s"], prediction.segment["fps"], run.train["model"]]
                writer.writerow([phase.name, row, run.seed, run.train["steps"], *scores, loss, *cost])
    return text.getvalue()
