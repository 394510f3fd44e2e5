# A row segments a benchmark, or its external masks are imported: the stamp holds the digest of their content.
rule segment:
    input:
        stamp=stamp("segment-{row}-seed{seed}-{benchmark}"),
        weights=lambda wildcards: trained(wildcards.row, wildcards.seed, "model.safetensors"),
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
        gpu=lambda wildcards: int(CONFIG.scale.device == "cuda" and not CONFIG.rows[wildcards.row].masks),
    shell:
        "python -m hodor segment {wildcards.row:q} {wildcards.benchmark:q} --seed {wildcards.seed:q}"
        " --stamp {input.stamp:q} 2>&1 | tee {log:q} >&2"
