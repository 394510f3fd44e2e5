# Data sets train a row. A training keeps its checkpoints in the undeclared folder checkpoints/ of the run, where a
# later try finds them; only what it leaves at the end is declared.
rule train:
    input:
        stamp=paths.stamp(SCALE, "train-{row}-seed{seed}"),
        data=lambda wildcards: RECORDS.train_data(wildcards.row, wildcards.seed),
        init=lambda wildcards: [
            paths.run(SCALE, parent, wildcards.seed) / "model.safetensors"
            for parent in filter(None, [CONFIG.rows[wildcards.row].init])
        ],
    output:
        paths.run(SCALE, "{row}", "{seed}") / "model.safetensors",
        paths.run(SCALE, "{row}", "{seed}") / "train.json",
        paths.run(SCALE, "{row}", "{seed}") / "train.jsonl",
    log:
        paths.log(SCALE, "train-{row}-seed{seed}"),
    benchmark:
        paths.benchmark(SCALE, "train-{row}-seed{seed}")
    # Before what only waits for it: the cyclic rows start from other rows, and scoring fills what room is left.
    priority: 1
    conda:
        "../../environment.yml"
    threads: CONFIG.scale.threads
    resources:
        gpu=int(CONFIG.scale.device == "cuda"),
    params:
        data=paths.data(SCALE),
        out=subpath(output[0], parent=True),
        init=lambda wildcards, input: f"--init {input.init}" if input.init else "",
    shell:
        "python -m hodor train --stamp {input.stamp} --data {params.data} --out {params.out} {params.init}"
        " 2>&1 | tee {log} >&2"
