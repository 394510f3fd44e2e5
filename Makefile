# `make reproduce`: from a fresh machine to both tables and the report. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
TABLES := $(foreach table,ablation comparison extended,results/$(table)_table.csv) results/costs.csv results/claims.json \
  results/released_weights.csv reports/index.html

# Commands find the environment without activation; tools that they call (dvc calls snakemake) find each other.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help reproduce evidence install test test-long rehearse docs lint format dist golden restore schema clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 20

install: $(BIN)/.installed  ## make .venv with the pinned packages

# The file is written last: an installation that broke off is started again.
$(BIN)/.installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed, $$($(PYTHON) --version 2>&1) was found: make PYTHON=python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv || \
	  { echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2; exit 1; }
	echo "installing the packages of requirements.txt into .venv: a few minutes"
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --editable .
	touch $@

reproduce: $(BIN)/.installed  ## tables 1 and 2 and the report at the configured scale
	@snakemake --cores all $(TABLES)

# Complete seeds first, and of each the ablation first. The same command continues where it was stopped or killed.
evidence: $(BIN)/.installed  ## scale subset with three seeds, tables and claims: make evidence MIRROR=FOLDER
	@for seeds in 0 0,1 0,1,2; do
	  for rows in ablation main; do
	    snakemake --cores all --config scale=subset mirror=$(or $(MIRROR),$(error give MIRROR=FOLDER, which holds the archives)) \
	      seeds=$$seeds rows=$$rows -- $(TABLES)
	  done
	done

# Files run in the order of tests/conftest.py.
PYTEST := OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: $(BIN)/.installed  ## all tests but the long ones
	@$(PYTEST)

test-long: $(BIN)/.installed .venv/cluster/.installed  ## all tests
	@HYPOTHESIS_PROFILE=long $(PYTEST) -m "long or not long"

rehearse: $(BIN)/.installed  ## scale paper to its last file on a CPU, with few made-up data: 40 minutes, 24 GiB
	@$(PYTEST) -n 0 -s -m long tests/workflow/test_rehearsal.py

docs: $(BIN)/.installed .venv/docs/.installed  ## check the documentation and build its site, build/site/index.html
	@$(PYTEST) tests/test_repository.py
	rm -rf build/docs build/site
	mkdir -p build/docs
	git ls-files -z '*.md' docs examples LICENSE ':!hodor' ':!.github' | xargs -0 cp --parents --target-directory build/docs
	NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build --strict --quiet

.venv/docs/.installed: docs/requirements.txt
	@rm -rf .venv/docs
	$(PYTHON) -m venv .venv/docs
	.venv/docs/bin/pip install --disable-pip-version-check --quiet --no-deps --requirement $<
	touch $@

lint: $(BIN)/.installed  ## check style and types
	@ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	mypy

# What `pip install hodor-repro` would give: torch and NumPy, and nothing of this checkout.
dist:  ## build sdist and wheel, and run README's example with the wheel in an empty environment
	@rm -rf dist
	folder=$$(mktemp -d)
	trap 'rm -rf "$$folder"' EXIT
	$(PYTHON) -m venv "$$folder/build"
	"$$folder/build/bin/pip" install --disable-pip-version-check --quiet build
	"$$folder/build/bin/python" -m build --outdir dist
	$(PYTHON) -m venv "$$folder/empty"
	"$$folder/empty/bin/pip" install --disable-pip-version-check --quiet dist/*.whl
	sed -n '/^```python/,/^```/{/^```/!p}' README.md > "$$folder/example.py"
	cd "$$folder"
	empty/bin/hodor --version
	empty/bin/python example.py

golden: $(BIN)/.installed  ## write golden values anew after a recipe's version was raised
	@python -m tests.golden

# Beside the environment: a plugin in it makes every start of Snakemake slower. Slurm itself is the system's (docs/cluster.md).
.venv/cluster/.installed: tests/cluster/requirements.txt $(BIN)/.installed
	@rm -rf .venv/cluster
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --target .venv/cluster --requirement $<
	touch $@

# `--touch` declares every file up to date, so dvc must first find all of them as recorded. What it has pulled it takes
# for right without reading it; with an empty memory (DVC_SITE_CACHE_DIR) it reads every file.
restore: $(BIN)/.installed  ## download archives, checkpoints and tables from the dvc remote
	@dvc pull
	export DVC_SITE_CACHE_DIR=$$(mktemp -d)
	trap 'rm -rf "$$DVC_SITE_CACHE_DIR"' EXIT
	if ! dvc status --quiet; then
	  dvc status
	  files=$$(dvc data status --granular | sed -n 's/^ *modified: \(.*[^/]\)$$/\1/p' | paste --serial --delimiters ' ')
	  echo "make restore: $${files:-what is listed above} is not what dvc.lock records; where the remote is damaged, delete" \
	    "its copy, the file here and .dvc/cache, and push again from where it was made" >&2
	  exit 1
	fi
	snakemake --cores 1 --touch --quiet rules
	snakemake --cores 1 --quiet rules --allowed-rules publish_ablation publish_comparison publish_extended publish_costs \
	  publish_claims publish_submissions publish_pages submissions tables pages -- tables pages

schema: $(BIN)/.installed  ## write config/schema.json and the tables of config/README.md anew after an option was added
	@python -m hodor.config.schema config/schema.json

format: $(BIN)/.installed  ## format Python and Snakemake files
	@ruff format .
	ruff check --fix .
	snakefmt Snakefile workflow

clean:  ## delete the environment and everything that the workflow made; checkpoints in data/weights stay
	@rm -rf .venv .snakemake runs
	if [ -d data ]; then find data -mindepth 1 -maxdepth 1 -not -name weights -exec rm -rf {} +; fi
	find results reports -mindepth 1 -not -name README.md -delete
