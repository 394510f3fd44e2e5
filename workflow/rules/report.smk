# Scores become tables, tables become pages; results/ and reports/ hold copies of those of the configured scale. A table
# waits for its own rows alone, the pages for all tables.
FILES = {table: [f"{table}_table.{kind}" for kind in ("csv", "md", "tex")] for table in TABLES}
FILES["extended"].append("released_weights.csv")
FILES |= {"costs": ["costs.csv"], "claims": ["claims.json", "claims.md"]}
# Written beside the costs, for `dvc metrics` and `dvc plots`.
FOR_DVC = [paths.results(SCALE) / "metrics.json", directory(paths.results(SCALE) / "curves")]
# Zips for servers: the name below results/submissions, without the seed where it is 0, and the file.
SUBMISSIONS = {
    f"submissions/{row}/{benchmark}{f'-seed{seed}' if seed else ''}.zip": paths.submission(SCALE, row, seed, benchmark)
    for row, seed in CONFIG.runs(CONFIG.selected)
    for benchmark in CONFIG.benchmarks(row)
    if benchmark in SECRET
}
NOTEBOOKS = ("ablation", "comparison", "qualitative")
PAGES = ["index.html", *(f"{page}.{kind}" for page in NOTEBOOKS for kind in ("html", "ipynb"))]
# Their content follows from the results: figures of what was run, a page for each run.
PAGE_FOLDERS = ["figures", "runs"]


# `hodor tabulate TABLE`; and `hodor claims`, a verdict on each claim of the poster from the rows that it is about.
for table, files in FILES.items():
    words = ["claims"] if table == "claims" else ["tabulate", table]

    rule:
        name:
            "_".join(words)
        input:
            stamp=stamp("-".join(words)),
            runs=runs_of(table),
        output:
            [shown(paths.results(SCALE) / file) for file in files],
            FOR_DVC if table == "costs" else [],
        log:
            paths.log(SCALE, "-".join(words)),
        conda:
            ENVIRONMENT
        params:
            words=words,
        shell:
            "python -m hodor {params.words:q} --stamp {input.stamp:q} 2>&1 | tee {log:q} >&2"


rule render:
    input:
        stamp=stamp("render"),
        tables=[paths.results(SCALE) / name for table in FILES for name in FILES[table]],
        masks=[
            paths.prediction(SCALE, row, seed, benchmark) / "masks"
            for row, seed in CONFIG.runs(CONFIG.selected)
            for benchmark in CONFIG.benchmarks(row)
        ],
        # Attention maps are computed with them.
        weights=[
            path
            for row, seed in CONFIG.runs(CONFIG.tabulated("ablation"))
            for path in trained(row, seed, "model.safetensors")
        ],
        data=[
            data(SCALE, get_benchmark(benchmark).dataset)
            for benchmark in CONFIG.scale.benchmarks
            for data in (paths.manifest, paths.dataset)
        ],
    output:
        [shown(paths.reports(SCALE) / name) for name in PAGES + PAGE_FOLDERS],
    log:
        paths.log(SCALE, "render"),
    conda:
        ENVIRONMENT
    shell:
        "python -m hodor render --stamp {input.stamp:q} 2>&1 | tee {log:q} >&2"


# The published copies: what is copied, where it comes from -> where it goes.
PUBLISHED = {
    name: {paths.results(SCALE) / file: paths.results() / file for file in files} for name, files in FILES.items()
}
PUBLISHED["submissions"] = {source: paths.results() / target for target, source in SUBMISSIONS.items()}
PUBLISHED["pages"] = {paths.reports(SCALE) / page: paths.reports() / page for page in [*PAGES, *PAGE_FOLDERS]}


for name, copies in PUBLISHED.items():

    # No job for a cluster.
    rule:
        name:
            f"publish_{name}"
        input:
            marker=mark_published(SCALE, name, copies),
            sources=list(copies),
        output:
            [directory(copy) if copy.name in PAGE_FOLDERS else copy for copy in copies.values()],
        log:
            paths.log(SCALE, f"publish-{name}"),
        localrule: True
        conda:
            ENVIRONMENT
        params:
            pairs=[path for pair in copies.items() for path in pair],
        shell:
            'set -- {params.pairs:q}; while [ $# -gt 0 ]; do cp -R "$1" "$2" || {{'
            " echo 'fix what cp reports, then run the same command again; finished work is kept' >&2; exit 1; }};"
            " shift 2; done 2>&1 | tee {log:q} >&2"


rule submissions:
    input:
        list(PUBLISHED["submissions"].values()),


rule tables:
    input:
        [copy for name in FILES for copy in PUBLISHED[name].values()],
        rules.submissions.input,


rule pages:
    input:
        list(PUBLISHED["pages"].values()),
