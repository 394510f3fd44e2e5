# Input functions that several rule files share.
def stamp(name):
    """Input function of a step's stamp: its name with the wildcards filled in."""
    return lambda wildcards: RECORDS.stamps.path(name.format(**wildcards))


def records_of(row, seed):
    """Records of the masks and scores of one run."""
    return [
        paths.prediction(SCALE, row, seed, benchmark) / name
        for benchmark in CONFIG.benchmarks(row)
        for name in ("masks.json", "segment.json", "score.json")
    ]


def trained(row, seed, name):
    """A file that the training of a run writes, in a list; external masks have none."""
    return [] if CONFIG.rows[row].masks else [paths.run(SCALE, row, seed) / name]


def runs_of(table):
    """Records of the trainings that a table shows, and the manifests of their runs, which wait for the scores."""
    return [
        path
        for row, seed in CONFIG.runs(CONFIG.tabulated(table))
        for path in (*trained(row, seed, "train.json"), paths.run(SCALE, row, seed) / "manifest.json")
    ]


def shown(path):
    """Mark what `snakemake --report` shows: tables, the verdicts, notebooks and figures."""
    if path.name == "figures":
        return report(directory(path), patterns=["{figure}.png"], caption="../report/figure.rst", category="Figures")
    if path.suffix == ".csv":
        return report(path, caption="../report/table.rst", category="Tables")
    if path.name == "claims.md":
        return report(path, caption="../report/claims.rst", category="Claims")
    if path.suffix == ".html" and path.stem in NOTEBOOKS:
        return report(path, caption="../report/notebook.rst", category="Notebooks")
    return directory(path) if path.name in PAGE_FOLDERS else path
