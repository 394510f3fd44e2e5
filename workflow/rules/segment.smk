# A row segments a benchmark.
rule segment:
    input:
        stamp=stamp("segment-{row}-seed{seed}-{benchmark}"),
        weights=paths.run(SCALE, "{row}", "{seed}") / "model.safetensors",
        data=lambda wildcards: RECORDS.segment_data(wildcards.row, wildcards.seed, wildcards.benchmark),
    output:
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "masks.json",
        paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "segment.json",
        masks=directory(paths.prediction(SCALE, "{row}", "{seed}", "{benchmark}") / "masks"),
    log:
        paths.log(SCALE, "segment-{row}-seed{seed}-{benchmark}"),
    conda:
        ENVIRONMENT
    threads: CONFIG.scale.threads
    resources:
        gpu=int(CONFIG.scale.device == "cuda"),
    shell:
        "python -m hodor segment {wildcards.row:q} {wildcards.benchmark:q} --seed {wildcards.seed:q}"
        " --stamp {input.stamp:q} 2>&1 | tee {log:q} >&2"
