# Two commands matter: `make reproduce` and `make test`. Both set up what they need in .venv first.
#   make reproduce                    base world, all tables and figures of config/, in the preset `tiny`
#   make reproduce SEEDS=3            the same with training seeds 0, 1, 2
#   make reproduce TABLES="1 4"       only these tables, by number or name, or figures, by name
#   make reproduce PRESET=smoke       another preset of config/presets/
#   make status                       what is stale and why, what it would cost, what runs now
#   make accept                       "I accept this change of code": what other code made stays as it is
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PRESET ?= tiny
SEEDS ?=
TABLES ?=
CORES ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)

VENV := .venv
# The second with --no-deps, which pip has for a whole command only: docs/install.md.
LOCKS := requirements.lock requirements-nodeps.lock
# Written last and named by the lock files, so that an install that was interrupted, or is of another lock,
# is taken up again.
STAMP := $(VENV)/.installed-$(shell cat $(LOCKS) | cksum | tr -d ' ')
RESULTS := results/$(PRESET)

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# One thread a process, as many processes as cores: on small models threads only wait for each other.
export OMP_NUM_THREADS := 1

# One line a job: workflow/plugins. The profile is given by its path, for Snakemake would not find it.
SNAKEMAKE = PYTHONPATH=workflow/plugins snakemake --cores $(CORES) --logger brief \
	--workflow-profile workflow/profiles/default

ASKED = --preset "$(PRESET)" --seeds "$(SEEDS)" --tables "$(TABLES)" --cores $(CORES)

.PHONY: help
help:
	@sed -n '1,7s/^# \{0,1\}//p' Makefile
	@echo "Also: make sweep, make overhead, make bench, make lint, make report, make unlock."

# Of the lines that planning.targets writes, the first are Snakemake's options, the second the tables.
.PHONY: reproduce
reproduce: $(STAMP)
	@asked=$$(python -m mixgrpo.planning.targets $(ASKED)); \
	{ read -r options; read -r tables || true; } <<< "$$asked"; \
	set -f; $(SNAKEMAKE) $$options || { $(FAILED); }; \
	for table in $$tables; do echo; cat $(RESULTS)/tables/$$table.md; done; \
	echo; \
	echo "Tables (markdown, csv, LaTeX):  $(RESULTS)/tables/"; \
	echo "Figures:                        $(RESULTS)/figures/"; \
	! test -e $(RESULTS)/index.html || echo "Everything on one page:         $(RESULTS)/index.html"; \
	echo "What the base models draw:      $(RESULTS)/models/*/samples.png"; \
	echo "Pictures of every cell:         $(RESULTS)/images/"; \
	echo "Wall time:                      $$((SECONDS / 60)) min $$((SECONDS % 60)) s on $(CORES) core(s)"

.PHONY: status
status: $(STAMP)
	@python -m mixgrpo.planning.status $(ASKED)

# Not for what is missing, nor for what would be made with other settings: only for other code.
.PHONY: accept
accept: $(STAMP)
	@python -m mixgrpo.planning.accept $(ASKED)

# Learning rates of every method on validation prompts: config/sweep.yaml. Some minutes for each method.
.PHONY: sweep
sweep: $(STAMP)
	@$(SNAKEMAKE) --config preset=$(PRESET) -- sweep || { $(FAILED); }
	@cat $(RESULTS)/tables/sweep.md

# Everything in one html file, with the settings and run time of every job.
.PHONY: report
report: $(STAMP)
	@$(SNAKEMAKE) --config preset=$(PRESET) --report $(RESULTS)/report.html

.PHONY: test
test: lint
	@python -m pytest

.PHONY: lint
lint: $(STAMP)
	ruff format --check .
	ruff check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

# What an iteration costs, one job at a time: at the paper's size on a GPU, some hours; scaled down on a CPU, some
# minutes. PRESET=overhead_small asks for that anywhere. Interrupted, it goes on from the last iteration.
.PHONY: overhead
overhead: $(STAMP)
	@preset="$(if $(filter command environment,$(origin PRESET)),$(PRESET))"; \
	preset="$${preset:-$$(python benchmarks/overhead_preset.py)}"; \
	costs="results/$$preset/overhead/costs.md"; \
	$(SNAKEMAKE) --cores 1 --config preset=$$preset -- "$$costs" || { $(FAILED); }; \
	cat "$$costs"

# What is fast, and by how much.
.PHONY: bench
bench: $(STAMP)
	@for benchmark in benchmarks/*.py; do echo "$$benchmark"; python $$benchmark; done

# After a crash of the machine: Snakemake's lock is still there, though nothing runs.
.PHONY: unlock
unlock: $(STAMP)
	@$(SNAKEMAKE) --config preset=$(PRESET) --unlock

define FAILED
rc=$$?; echo >&2; \
echo "Something failed: its own message stands above, its log is in logs/$${preset:-$(PRESET)}/." >&2; \
echo "Run the same command again when it is mended: what is finished is kept." >&2; \
echo "(A locked directory, though nothing else runs here: make unlock.)" >&2; \
exit $$rc
endef

.PHONY: environment
environment: $(STAMP)

$(STAMP): $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
		echo "Install one and say which: make ... PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up $(VENV) (once, some minutes: PyTorch is large)..."
	@$(VENV)/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "Python's venv module is incomplete (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 2; }
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		-r requirements-nodeps.lock -e .
	@rm -f $(VENV)/.installed-*
	@touch $@
