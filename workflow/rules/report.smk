# Scores become tables, tables become pages; results/ and reports/ hold copies of those of the configured scale.
RUNS = [paths.run(SCALE, row, seed) for row in CONFIG.selected for seed in CONFIG.seeds]
PREDICTIONS = [run / benchmark for run in RUNS for benchmark in CONFIG.scale.benchmarks]
TABLES = [f"{table}_table.{kind}" for table in ("ablation", "comparison", "extended") for kind in ("csv", "md")]
TABLES += ["costs.csv"]
PAGES = ["index.html", *(f"{page}.{kind}" for page in ("ablation", "comparison") for kind in ("html", "ipynb"))]


rule tabulate:
    input:
        stamp=paths.stamp(SCALE, "tabulate"),
        runs=[run / name for run in RUNS for name in ("train.json", "manifest.json")],
        predictions=[
            prediction / name for prediction in PREDICTIONS for name in ("masks.json", "segment.json", "score.json")
        ],
    output:
        [paths.results(SCALE) / name for name in TABLES],
    log:
        paths.log(SCALE, "tabulate"),
    benchmark:
        paths.benchmark(SCALE, "tabulate")
    conda:
        "../../environment.yml"
    params:
        runs=paths.runs(SCALE),
        out=paths.results(SCALE),
    shell:
        "python -m hodor tabulate --stamp {input.stamp} --runs {params.runs} --out {params.out} 2>&1 | tee {log} >&2"


rule render:
    input:
        stamp=paths.stamp(SCALE, "render"),
        tables=[paths.results(SCALE) / name for name in TABLES],
        masks=[prediction / "masks" for prediction in PREDICTIONS],
        data=[
            data(SCALE, get_benchmark(benchmark).dataset)
            for benchmark in CONFIG.scale.benchmarks
            for data in (paths.manifest, paths.dataset)
        ],
    output:
        [paths.reports(SCALE) / name for name in PAGES],
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
        tables=[paths.results(SCALE) / name for name in TABLES],
    output:
        [paths.results() / name for name in TABLES],
    log:
        paths.log(SCALE, "publish"),
    benchmark:
        paths.benchmark(SCALE, "publish")
    conda:
        "../../environment.yml"
    params:
        out=paths.results(),
    shell:
        "cp {input.tables} {params.out} 2> {log}"


rule tables:
    input:
        rules.publish.output,


rule publish_pages:
    input:
        configured=paths.configured(),
        pages=[paths.reports(SCALE) / name for name in PAGES],
    output:
        [paths.reports() / name for name in PAGES],
    log:
        paths.log(SCALE, "publish_pages"),
    benchmark:
        paths.benchmark(SCALE, "publish_pages")
    conda:
        "../../environment.yml"
    params:
        out=paths.reports(),
    shell:
        "cp {input.pages} {params.out} 2> {log}"


rule pages:
    input:
        rules.publish_pages.output,
