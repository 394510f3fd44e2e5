# Archives become data sets. A later step asks for them only while its result is not up to date by its own record
# (hodor/records.py), so that an archive fetched again, or a data set extracted again, trains nothing again.
rule prepare:
    input:
        stamp=stamp("prepare-{dataset}"),
        archives=paths.fetched(SCALE, "{dataset}"),
    output:
        manifest=paths.manifest(SCALE, "{dataset}"),
        data=directory(paths.dataset(SCALE, "{dataset}")),
    log:
        paths.log(SCALE, "prepare-{dataset}"),
    conda:
        ENVIRONMENT
    shell:
        "python -m hodor prepare {wildcards.dataset:q} --stamp {input.stamp:q} 2>&1 | tee {log:q} >&2"


rule data:
    input:
        [paths.manifest(SCALE, dataset) for dataset in CONFIG.scale.datasets],
