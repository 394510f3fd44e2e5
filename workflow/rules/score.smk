# Masks become scores, or, where a server has the truth, the zip that it takes.
SECRET = CONFIG.secret()


rule score:
    input:
        stamp=paths.stamp(SCALE, "score-{benchmark}"),
        masks=paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "masks.json",
        folder=paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "masks",
        truth=lambda wildcards: RECORDS.score_data(wildcards.row, wildcards.seed, wildcards.benchmark),
    output:
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "score.json",
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "per_frame.csv",
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "per_object.csv",
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "global.csv",
    log:
        paths.log(SCALE, "score-{row}-seed{seed}-{benchmark}"),
    benchmark:
        paths.benchmark(SCALE, "score-{row}-seed{seed}-{benchmark}")
    wildcard_constraints:
        benchmark="|".join(name for name in CONFIG.scale.benchmarks if name not in SECRET) or "none",
    conda:
        "../../environment.yml"
    threads: 2
    params:
        out=subpath(output[0], parent=True),
        truth=lambda wildcards: paths.dataset(SCALE, get_benchmark(wildcards.benchmark).dataset),
    shell:
        "python -m hodor score --stamp {input.stamp} --pred {input.folder} --truth {params.truth}"
        " --benchmark {wildcards.benchmark} --out {params.out} --jobs {threads} 2>&1 | tee {log} >&2"


rule submit:
    input:
        stamp=paths.stamp(SCALE, "score-{benchmark}"),
        masks=paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "masks.json",
        folder=paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "masks",
        data=lambda wildcards: RECORDS.score_data(wildcards.row, wildcards.seed, wildcards.benchmark),
    output:
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "score.json",
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "per_frame.csv",
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "per_object.csv",
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "global.csv",
        zip=paths.submission(SCALE, "{row}", "{seed}", "{benchmark}"),
    log:
        paths.log(SCALE, "score-{row}-seed{seed}-{benchmark}"),
    benchmark:
        paths.benchmark(SCALE, "score-{row}-seed{seed}-{benchmark}")
    wildcard_constraints:
        benchmark="|".join(SECRET) or "none",
    conda:
        "../../environment.yml"
    params:
        out=subpath(output[0], parent=True),
        truth=lambda wildcards: paths.dataset(SCALE, get_benchmark(wildcards.benchmark).dataset),
    shell:
        "python -m hodor submit --stamp {input.stamp} --pred {input.folder} --truth {params.truth}"
        " --benchmark {wildcards.benchmark} --zip {output.zip} --out {params.out} 2>&1 | tee {log} >&2"


# What a run is made of and made with, in one file beside the weights.
rule manifest:
    input:
        paths.run(SCALE, "{row}", "{seed}") / "train.json",
        lambda wildcards: [
            paths.prediction(SCALE, wildcards.row, wildcards.seed, benchmark) / name
            for benchmark in CONFIG.benchmarks(wildcards.row)
            for name in ("masks.json", "segment.json", "score.json")
        ],
    output:
        paths.run(SCALE, "{row}", "{seed}") / "manifest.json",
    log:
        paths.log(SCALE, "manifest-{row}-seed{seed}"),
    benchmark:
        paths.benchmark(SCALE, "manifest-{row}-seed{seed}")
    conda:
        "../../environment.yml"
    params:
        run=subpath(output[0], parent=True),
        benchmarks=lambda wildcards: CONFIG.benchmarks(wildcards.row),
    shell:
        "python -m hodor manifest --run {params.run} --benchmark {params.benchmarks} 2>&1 | tee {log} >&2"


# `snakemake --cores all hodor-soft-coco` makes one row, without the tables; a row that is not selected is no work.
for row in CONFIG.rows:

    rule:
        name:
            row
        input:
            [paths.run(SCALE, row, seed) / "manifest.json" for seed in CONFIG.seeds if row in CONFIG.selected],
