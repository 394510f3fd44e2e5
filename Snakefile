# The whole experiment: `snakemake --cores all` makes every table and page of the scale that config/config.yaml names.
# A step knows its settings from its stamp alone (hodor/stamps.py); stamps are written here, whenever this file is read.
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from hodor import paths
from hodor.config.benchmarks import get_benchmark
from hodor.config.schema import TABLES
from hodor.workflow import check_triggers, mark_published, set_up

CONFIG, RECORDS = set_up(Path(workflow.basedir), config)
SCALE = CONFIG.scale.name
# Braces in the path of the checkout are no wildcards.
ENVIRONMENT = f"{workflow.basedir}/environment.yml".replace("{", "{{").replace("}", "}}")


wildcard_constraints:
    dataset="|".join(CONFIG.scale.datasets),
    row="|".join(CONFIG.needed()),
    seed="|".join(map(str, {seed for row in CONFIG.needed() for seed in CONFIG.seeds_of(row)})),
    benchmark="|".join(CONFIG.scale.benchmarks),


for phase in ("common", "fetch", "prepare", "train", "segment", "score", "report"):

    include: f"workflow/rules/{phase}.smk"


onstart:
    check_triggers(workflow.rerun_triggers)


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.pages.input,
