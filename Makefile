# Two commands matter: `make reproduce` and `make test`. Both set up what they need in .venv first.
#   make reproduce                    base world, all tables and figures of config/, in the preset `tiny`
#   make reproduce SEEDS=3            the same with training seeds 0, 1, 2
#   make reproduce TABLES="1 4"       only these tables, by number or name, or figures, by name
#   make reproduce PRESET=smoke       another preset of config/presets/
#   make status                       what is stale and why, what it would cost, what runs now
#   make accept                       "I accept this change of code": what other code made stays as it is
#   make slurm PRESET=paper           the same on a Slurm cluster: workflow/profiles/slurm/profile.yaml, docs/slurm.md
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
PRESET ?= tiny
SEEDS ?=
TABLES ?=
# Where jobs run: a folder of workflow/profiles/, or the path of one elsewhere.
PROFILE ?= default
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

# The profile is given by its path, for Snakemake would not find it, and would go on without it. On a cluster the
# cores of this machine are for local rules only.
PROFILE_DIR := $(if $(findstring /,$(PROFILE)),$(PROFILE),workflow/profiles/$(PROFILE))
ifeq ($(wildcard $(PROFILE_DIR)/profile.yaml),)
$(error PROFILE=$(PROFILE): there is no $(PROFILE_DIR)/profile.yaml. There are: $(notdir $(wildcard workflow/profiles/*)))
endif
CLUSTER := $(if $(filter default,$(PROFILE)),,$(shell grep '^executor: slurm' $(PROFILE_DIR)/profile.yaml))
# One line a job: workflow/plugins.
SNAKEMAKE = PYTHONPATH=workflow/plugins snakemake --logger brief --workflow-profile $(PROFILE_DIR) \
	$(if $(filter default,$(PROFILE)),--cores,--local-cores) $(CORES)

ASKED = --preset "$(PRESET)" --seeds "$(SEEDS)" --tables "$(TABLES)" --cores $(CORES)

.PHONY: help
help:
	@sed -n '1,8s/^# \{0,1\}//p' Makefile
	@echo "Also: make check-cluster, make sweep, make overhead, make bench, make lint, make report, make unlock."

# Of the lines that planning.targets writes, the first are Snakemake's options, the second the tables.
.PHONY: reproduce
reproduce: $(STAMP)
	@$(if $(CLUSTER),$(CHECK_CLUSTER);) asked=$$(python -m mixgrpo.planning.targets $(ASKED)); \
	{ read -r options; read -r tables || true; } <<< "$$asked"; \
	set -f; $(SNAKEMAKE) $$options || { $(FAILED); }; \
	for table in $$tables; do echo; cat $(RESULTS)/tables/$$table.md; done; \
	echo; \
	echo "Tables (markdown, csv, LaTeX):  $(RESULTS)/tables/"; \
	echo "Figures:                        $(RESULTS)/figures/"; \
	! test -e $(RESULTS)/index.html || echo "Everything on one page:         $(RESULTS)/index.html"; \
	echo "What the base models draw:      $(RESULTS)/models/*/samples.png"; \
	echo "Pictures of every cell:         $(RESULTS)/images/"; \
	echo "Wall time:                      $$((SECONDS / 60)) min $$((SECONDS % 60)) s$(if $(filter default,$(PROFILE)), on $(CORES) core(s))"

# What a wrong partition, or too much memory, would say late or never is said before anything is submitted.
CHECK_CLUSTER = python -m mixgrpo check-cluster --profile $(PROFILE_DIR)/profile.yaml --preset "$(PRESET)" \
	--seeds "$(SEEDS)" --tables "$(TABLES)"

.PHONY: check-cluster
check-cluster: PROFILE_DIR := $(if $(CLUSTER),$(PROFILE_DIR),workflow/profiles/slurm)
check-cluster: $(STAMP)
	@$(CHECK_CLUSTER)

.PHONY: slurm
slurm:
	@$(MAKE) reproduce PROFILE=slurm

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
