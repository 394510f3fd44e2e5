# Scores become tables, tables become pages; results/ and reports/ hold copies of those of the configured scale. A table
# waits for its own rows alone, the pages for all tables.
FILES = {table: [f"{table}_table.{kind}" for kind in ("csv", "md", "tex")] for table in TABLES}
FILES |= {"costs": ["costs.csv"], "claims": ["claims.json", "claims.md"]}
RUNS = {
    table: [paths.run(SCALE, row, seed) for row in CONFIG.tabulated(table) for seed in CONFIG.seeds] for table in FILES
}
PREDICTIONS = {
    table: [
        paths.prediction(SCALE, row, seed, benchmark)
        for row in CONFIG.tabulated(table)
        for seed in CONFIG.seeds
        for benchmark in CONFIG.benchmarks(row)
    ]
    for table in FILES
}
# Zips for servers: the name below results/submissions, where that of seed 0 is plain, -> whose they are.
SUBMISSIONS = {
    f"{row}/{benchmark}{f'-seed{seed}' if seed else ''}": (row, seed, benchmark)
    for row in CONFIG.selected
    for seed in CONFIG.seeds
    for benchmark in CONFIG.benchmarks(row)
    if benchmark in CONFIG.secret()
}
COPY_FAILED = (
    "{ echo 'mend what cp says, then run the same command again: nothing that was done is lost' >&2; exit 1; }"
)
NOTEBOOKS = ("ablation", "comparison", "qualitative")
PAGES = ["index.html", *(f"{page}.{kind}" for page in NOTEBOOKS for kind in ("html", "ipynb"))]
# What is in them follows from the results: pictures of what was run, a page for each run.
PAGE_FOLDERS = ["figures", "runs"]


# Copies are no jobs for a cluster.
localrules:
    publish,
    publish_costs,
    publish_submission,
    publish_claims,
    publish_released,
    publish_pages,


rule tabulate:
    input:
        stamp=paths.stamp(SCALE, "tabulate-{table}"),
        runs=lambda wildcards: [run / name for run in RUNS[wildcards.table] for name in ("train.json", "manifest.json")],
        predictions=lambda wildcards: [
            prediction / name
            for prediction in PREDICTIONS[wildcards.table]
            for name in ("masks.json", "segment.json", "score.json")
        ],
    output:
        paths.results(SCALE) / "{table}_table.csv",
        paths.results(SCALE) / "{table}_table.md",
        paths.results(SCALE) / "{table}_table.tex",
    log:
        paths.log(SCALE, "tabulate-{table}"),
    benchmark:
        paths.benchmark(SCALE, "tabulate-{table}")
    conda:
        "../../environment.yml"
    params:
        runs=paths.runs(SCALE),
        out=paths.results(SCALE),
    shell:
        "python -m hodor tabulate --stamp {input.stamp} --runs {params.runs} --out {params.out} 2>&1 | tee {log} >&2"


use rule tabulate as tabulate_costs with:
    input:
        stamp=paths.stamp(SCALE, "tabulate-costs"),
        runs=[run / name for run in RUNS["costs"] for name in ("train.json", "manifest.json")],
        predictions=[
            prediction / name
            for prediction in PREDICTIONS["costs"]
            for name in ("masks.json", "segment.json", "score.json")
        ],
    output:
        paths.results(SCALE) / "costs.csv",
    log:
        paths.log(SCALE, "tabulate-costs"),
    benchmark:
        paths.benchmark(SCALE, "tabulate-costs")


# Every claim of the poster gets a verdict from the rows that it is about.
rule claims:
    input:
        stamp=paths.stamp(SCALE, "claims"),
        runs=[run / name for run in RUNS["claims"] for name in ("train.json", "manifest.json")],
        predictions=[
            prediction / name
            for prediction in PREDICTIONS["claims"]
            for name in ("masks.json", "segment.json", "score.json")
        ],
    output:
        [paths.results(SCALE) / name for name in FILES["claims"]],
    log:
        paths.log(SCALE, "claims"),
    benchmark:
        paths.benchmark(SCALE, "claims")
    conda:
        "../../environment.yml"
    params:
        runs=paths.runs(SCALE),
        out=paths.results(SCALE),
    shell:
        "python -m hodor claims --stamp {input.stamp} --runs {params.runs} --out {params.out} 2>&1 | tee {log} >&2"


rule render:
    input:
        stamp=paths.stamp(SCALE, "render"),
        tables=[paths.results(SCALE) / name for table in FILES for name in FILES[table]],
        released=paths.results(SCALE) / "released_weights.csv",
        masks=[prediction / "masks" for prediction in PREDICTIONS["costs"]],
        # Attention maps are computed with them.
        weights=[run / "model.safetensors" for run in RUNS["ablation"]],
        data=[
            data(SCALE, get_benchmark(benchmark).dataset)
            for benchmark in CONFIG.scale.benchmarks
            for data in (paths.manifest, paths.dataset)
        ],
    output:
        [paths.reports(SCALE) / name for name in PAGES],
        [directory(paths.reports(SCALE) / name) for name in PAGE_FOLDERS],
    log:
        paths.log(SCALE, "render"),
    benchmark:
        paths.benchmark(SCALE, "render")
    conda:
        "../../environment.yml"
    params:
        results=paths.results(SCALE),
        runs=paths.runs(SCALE),
        data=paths.data(SCALE),
        out=paths.reports(SCALE),
    shell:
        "python -m hodor render --stamp {input.stamp} --results {params.results} --runs {params.runs}"
        " --data {params.data} --out {params.out} 2>&1 | tee {log} >&2"


rule publish:
    input:
        configured=paths.configured(),
        tables=[paths.results(SCALE) / f"{{table}}_table.{kind}" for kind in ("csv", "md", "tex")],
    output:
        paths.results() / "{table}_table.csv",
        paths.results() / "{table}_table.md",
        paths.results() / "{table}_table.tex",
    log:
        paths.log(SCALE, "publish-{table}"),
    benchmark:
        paths.benchmark(SCALE, "publish-{table}")
    conda:
        "../../environment.yml"
    params:
        out=paths.results(),
        failed=COPY_FAILED,
    shell:
        "cp {input.tables} {params.out} 2>&1 | tee {log} >&2 || {params.failed}"


use rule publish as publish_costs with:
    input:
        configured=paths.configured(),
        tables=paths.results(SCALE) / "costs.csv",
    output:
        paths.results() / "costs.csv",
    log:
        paths.log(SCALE, "publish-costs"),
    benchmark:
        paths.benchmark(SCALE, "publish-costs")


rule publish_submission:
    input:
        configured=paths.configured(),
        zip=lambda wildcards: paths.submission(SCALE, *SUBMISSIONS[f"{wildcards.row}/{wildcards.zip}"]),
    output:
        paths.results() / "submissions" / "{row}" / "{zip}.zip",
    log:
        paths.log(SCALE, "publish-{row}-{zip}"),
    benchmark:
        paths.benchmark(SCALE, "publish-{row}-{zip}")
    wildcard_constraints:
        zip="[^/]+",
    conda:
        "../../environment.yml"
    params:
        failed=COPY_FAILED,
    shell:
        "cp {input.zip} {output} 2>&1 | tee {log} >&2 || {params.failed}"


rule submissions:
    input:
        [paths.results() / "submissions" / f"{name}.zip" for name in SUBMISSIONS],


use rule publish as publish_claims with:
    input:
        configured=paths.configured(),
        tables=[paths.results(SCALE) / name for name in FILES["claims"]],
    output:
        [paths.results() / name for name in FILES["claims"]],
    log:
        paths.log(SCALE, "publish-claims"),
    benchmark:
        paths.benchmark(SCALE, "publish-claims")


rule tables:
    input:
        [paths.results() / name for table in FILES for name in FILES[table]],
        rules.submissions.input,


rule publish_pages:
    input:
        configured=paths.configured(),
        pages=[paths.reports(SCALE) / name for name in [*PAGES, *PAGE_FOLDERS]],
    output:
        [paths.reports() / name for name in PAGES],
        [directory(paths.reports() / name) for name in PAGE_FOLDERS],
    log:
        paths.log(SCALE, "publish_pages"),
    benchmark:
        paths.benchmark(SCALE, "publish_pages")
    conda:
        "../../environment.yml"
    params:
        out=paths.reports(),
        failed=COPY_FAILED,
    shell:
        "cp -R {input.pages} {params.out} 2>&1 | tee {log} >&2 || {params.failed}"


rule pages:
    input:
        rules.publish_pages.output,
