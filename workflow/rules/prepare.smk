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


# What a training stage that says `packed` reads: decoded pixels in few files.
rule pack:
    input:
        stamp=stamp("pack-{pack}"),
        data=lambda wildcards: RECORDS.pack_data(wildcards.pack),
    output:
        manifest=paths.packed_manifest(SCALE, "{pack}"),
        pack=directory(paths.packed(SCALE, "{pack}")),
    log:
        paths.log(SCALE, "pack-{pack}"),
    wildcard_constraints:
        pack="|".join(CONFIG.packs(*CONFIG.needed())) or "none",
    conda:
        ENVIRONMENT
    threads: 8
    shell:
        "python -m hodor pack {wildcards.pack:q} --stamp {input.stamp:q} --jobs {threads} 2>&1 | tee {log:q} >&2"


rule data:
    input:
        [paths.manifest(SCALE, dataset) for dataset in CONFIG.scale.datasets],
