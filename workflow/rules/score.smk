# Masks become scores, or, where a server has the ground truth, the zip that it expects.
SECRET = CONFIG.secret()
PREDICTION = paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}")
SCORES = [PREDICTION / name for name in ("score.json", "per_frame.csv", "per_object.csv", "global.csv")]


rule score:
    input:
        stamp=stamp("score-{benchmark}"),
        masks=PREDICTION / "masks.json",
        folder=PREDICTION / "masks",
        data=lambda wildcards: RECORDS.score_data(wildcards.row, wildcards.seed, wildcards.benchmark),
    output:
        SCORES,
    log:
        paths.log(SCALE, "score-{row}-seed{seed}-{benchmark}"),
    wildcard_constraints:
        benchmark="|".join(name for name in CONFIG.scale.benchmarks if name not in SECRET) or "none",
    conda:
        ENVIRONMENT
    threads: CONFIG.scale.threads
    # The official toolkit's peak: it holds the masks of a sequence as float64.
    resources:
        mem_mb=lambda wildcards: 3500 if wildcards.benchmark == "davis2017-val" else 6500,
    shell:
        "python -m hodor score {wildcards.row:q} {wildcards.benchmark:q} --seed {wildcards.seed:q}"
        " --stamp {input.stamp:q} --jobs {threads} 2>&1 | tee {log:q} >&2"


rule submit:
    input:
        stamp=stamp("score-{benchmark}"),
        masks=PREDICTION / "masks.json",
        folder=PREDICTION / "masks",
        data=lambda wildcards: RECORDS.score_data(wildcards.row, wildcards.seed, wildcards.benchmark),
    output:
        SCORES,
        zip=paths.submission(SCALE, "{row}", "{seed}", "{benchmark}"),
    log:
        paths.log(SCALE, "score-{row}-seed{seed}-{benchmark}"),
    wildcard_constraints:
        benchmark="|".join(SECRET) or "none",
    conda:
        ENVIRONMENT
    shell:
        "python -m hodor submit {wildcards.row:q} {wildcards.benchmark:q} --seed {wildcards.seed:q}"
        " --stamp {input.stamp:q} 2>&1 | tee {log:q} >&2"


# What a run is made of and made with, in one file beside the weights.
rule manifest:
    input:
        lambda wildcards: trained(wildcards.row, wildcards.seed, "train.json"),
        lambda wildcards: records_of(wildcards.row, wildcards.seed),
    output:
        paths.run(SCALE, "{row}", "{seed}") / "manifest.json",
    log:
        paths.log(SCALE, "manifest-{row}-seed{seed}"),
    conda:
        ENVIRONMENT
    params:
        scale=SCALE,
        benchmarks=lambda wildcards: CONFIG.benchmarks(wildcards.row),
    shell:
        "python -m hodor manifest {wildcards.row:q} --seed {wildcards.seed:q} --scale {params.scale:q}"
        " --benchmarks {params.benchmarks:q} 2>&1 | tee {log:q} >&2"


# `snakemake --cores all hodor-soft-coco` makes one row, without the tables; a row that is not selected is no work.
for row in CONFIG.rows:

    rule:
        name:
            row
        input:
            [paths.run(SCALE, row, seed) / "manifest.json" for seed in CONFIG.seeds_of(row) if row in CONFIG.selected],
