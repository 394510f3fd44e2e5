# Data sets train a row, or its released weights are converted. A training keeps its checkpoints in the undeclared folder
# checkpoints/ of the run, where a later try finds them; only what it leaves at the end is declared. Before the first
# training everything that the targets need is fetched and prepared, so that a bad archive costs no GPU hours.
rule train:
    input:
        stamp=stamp("train-{row}-seed{seed}"),
        data=lambda wildcards: RECORDS.train_data(wildcards.row, wildcards.seed, workflow.dag_settings.targets),
        init=lambda wildcards: [
            paths.run(SCALE, parent, wildcards.seed) / "model.safetensors"
            for parent in filter(None, [CONFIG.rows[wildcards.row].init])
        ],
        released=lambda wildcards: CONFIG.checkpoints.get(wildcards.row, []),
    output:
        paths.run(SCALE, "{row}", "{seed}") / "model.safetensors",
        paths.run(SCALE, "{row}", "{seed}") / "train.json",
        paths.run(SCALE, "{row}", "{seed}") / "train.jsonl",
    log:
        paths.log(SCALE, "train-{row}-seed{seed}"),
    # The cyclic rows wait for other rows; scoring uses what cores are left.
    priority: 1
    conda:
        ENVIRONMENT
    threads: CONFIG.scale.threads * CONFIG.settings.execution.processes
    resources:
        gpu=int(CONFIG.scale.device == "cuda") * CONFIG.settings.execution.processes,
    params:
        # How it is executed changes no result, so it is in no stamp.
        execution=CONFIG.settings.execution.arguments(),
    # A signal to stop reaches all processes of a job: shell and log live on until the training has saved its state.
    shell:
        "trap : TERM USR1;"
        " python -m hodor train {wildcards.row:q} --seed {wildcards.seed:q}"
        " --stamp {input.stamp:q} {params.execution} 2>&1 | (trap '' TERM USR1; tee {log:q} >&2)"
