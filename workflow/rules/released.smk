# The authors' checkpoints that lie in data/weights are scored like rows: each becomes a run under seed 0, segmented with
# the settings of its row at scale paper. Which of them are there is asked whenever this file is read, and is part of the
# table's stamp: a checkpoint that appears makes the table anew. (`hodor fetch weights`, or by hand.)
RELEASED = RECORDS.stamps.released
RELEASED_RUN = paths.run(SCALE, "released-{released}", 0)
RELEASED_PREDICTION = paths.prediction(SCALE, "released-{released}", 0, "{benchmark}")


rule adopt_released:
    input:
        stamp=paths.stamp(SCALE, "train-released-{released}-seed0"),
        checkpoint=lambda wildcards: locate(RELEASED[wildcards.released]),
    output:
        RELEASED_RUN / "model.safetensors",
        RELEASED_RUN / "train.json",
    log:
        paths.log(SCALE, "train-released-{released}-seed0"),
    benchmark:
        paths.benchmark(SCALE, "train-released-{released}-seed0")
    wildcard_constraints:
        released="|".join(RELEASED) or "none",
    conda:
        "../../environment.yml"
    params:
        out=subpath(output[0], parent=True),
    shell:
        "python -m hodor released --stamp {input.stamp} --checkpoint {input.checkpoint} --out {params.out}"
        " 2>&1 | tee {log} >&2"


use rule segment as segment_released with:
    input:
        stamp=paths.stamp(SCALE, "segment-released-{released}-seed0-{benchmark}"),
        weights=RELEASED_RUN / "model.safetensors",
        data=lambda wildcards: RECORDS.segment_data(f"released-{wildcards.released}", 0, wildcards.benchmark),
    output:
        RELEASED_PREDICTION / "masks.json",
        RELEASED_PREDICTION / "segment.json",
        masks=directory(RELEASED_PREDICTION / "masks"),
    log:
        paths.log(SCALE, "segment-released-{released}-seed0-{benchmark}"),
    benchmark:
        paths.benchmark(SCALE, "segment-released-{released}-seed0-{benchmark}")
    wildcard_constraints:
        released="|".join(RELEASED) or "none",


use rule score as score_released with:
    input:
        stamp=paths.stamp(SCALE, "score-{benchmark}"),
        masks=RELEASED_PREDICTION / "masks.json",
        folder=RELEASED_PREDICTION / "masks",
        truth=lambda wildcards: RECORDS.score_data(f"released-{wildcards.released}", 0, wildcards.benchmark),
    output:
        RELEASED_PREDICTION / "score.json",
        RELEASED_PREDICTION / "per_frame.csv",
        RELEASED_PREDICTION / "per_object.csv",
        RELEASED_PREDICTION / "global.csv",
    log:
        paths.log(SCALE, "score-released-{released}-seed0-{benchmark}"),
    benchmark:
        paths.benchmark(SCALE, "score-released-{released}-seed0-{benchmark}")
    wildcard_constraints:
        released="|".join(RELEASED) or "none",
        benchmark="|".join(name for name in CONFIG.scale.benchmarks if name not in SECRET) or "none",


use rule submit as submit_released with:
    input:
        stamp=paths.stamp(SCALE, "score-{benchmark}"),
        masks=RELEASED_PREDICTION / "masks.json",
        folder=RELEASED_PREDICTION / "masks",
        data=lambda wildcards: RECORDS.score_data(f"released-{wildcards.released}", 0, wildcards.benchmark),
    output:
        RELEASED_PREDICTION / "score.json",
        RELEASED_PREDICTION / "per_frame.csv",
        RELEASED_PREDICTION / "per_object.csv",
        RELEASED_PREDICTION / "global.csv",
        zip=paths.submission(SCALE, "released-{released}", 0, "{benchmark}"),
    log:
        paths.log(SCALE, "score-released-{released}-seed0-{benchmark}"),
    benchmark:
        paths.benchmark(SCALE, "score-released-{released}-seed0-{benchmark}")
    wildcard_constraints:
        released="|".join(RELEASED) or "none",
        benchmark="|".join(SECRET) or "none",


use rule tabulate as tabulate_released with:
    input:
        stamp=paths.stamp(SCALE, "tabulate-released"),
        runs=[paths.run(SCALE, f"released-{id}", 0) / "train.json" for id in RELEASED],
        predictions=[
            paths.prediction(SCALE, f"released-{id}", 0, benchmark) / name
            for id in RELEASED
            for benchmark in released_benchmarks(CONFIG)
            for name in ("masks.json", "segment.json", "score.json")
        ],
    output:
        paths.results(SCALE) / "released_weights.csv",
    log:
        paths.log(SCALE, "tabulate-released"),
    benchmark:
        paths.benchmark(SCALE, "tabulate-released")


use rule publish as publish_released with:
    input:
        configured=paths.configured(),
        tables=paths.results(SCALE) / "released_weights.csv",
    output:
        paths.results() / "released_weights.csv",
    log:
        paths.log(SCALE, "publish-released"),
    benchmark:
        paths.benchmark(SCALE, "publish-released")


rule released:
    input:
        rules.publish_released.output,
