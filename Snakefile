# `snakemake --cores all` in this folder: the workflow of workflow/Snakefile with profiles/default, which Snakemake finds
# beside this file only. An `include` would lose the default target.
module hodor:
    snakefile:
        "workflow/Snakefile"
    config:
        config


use rule * from hodor


onstart:
    hodor.onstart()


onerror:
    hodor.onerror()
