# Sources become archives. The archives themselves are not declared: Snakemake deletes what a rule declares before it
# runs the rule again, and a download of many gigabytes must survive that. On a cluster this runs where Snakemake does:
# its nodes may have no network.
rule fetch:
    input:
        stamp=stamp("fetch-{dataset}"),
    output:
        paths.fetched(SCALE, "{dataset}"),
    log:
        paths.log(SCALE, "fetch-{dataset}"),
    localrule: True
    conda:
        ENVIRONMENT
    shell:
        "python -m hodor fetch {wildcards.dataset:q} --stamp {input.stamp:q} 2>&1 | tee {log:q} >&2"


rule archives:
    input:
        [paths.fetched(SCALE, dataset) for dataset in CONFIG.scale.datasets],
