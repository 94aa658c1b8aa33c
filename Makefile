# Two commands matter: `make discover` runs the main job, `make test` checks everything. Both set up what they need.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
export PYTHON VENV
# A laptop's fans and a shared machine both do better with one thread a process; jobs run side by side instead.
export OMP_NUM_THREADS ?= 1
TARGET := --target "0.5 < band_gap < 2.0" --target "formation_energy_per_atom < -1.0" --target "space_group_number >= 143"
MYPY_VIEW := .mypy_path/wyloop

.PHONY: discover setup check format test docs bench validate-physics crash-matrix soak bench-sun help

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: ## install system packages, .venv and the pinned Python packages
	@deploy/install.sh

discover: setup ## run the main job: two rounds of discovery on this machine
	$(VENV)/bin/wyloop discover $(TARGET) --rounds 2 --dft 2

$(MYPY_VIEW):
	@mkdir -p .mypy_path && ln -sfn .. $(MYPY_VIEW)

check: setup $(MYPY_VIEW) ## format, lint, types, import floors
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	MYPYPATH=.mypy_path $(VENV)/bin/mypy --strict --namespace-packages --explicit-package-bases \
		-p wyloop.models -p wyloop.stores -p wyloop.flows -p wyloop.platform
	PYTHONPATH=.mypy_path $(VENV)/bin/lint-imports

format: setup ## format and mend what ruff can
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

test: check ## everything: checks, then the tests with coverage on real MongoDB, LaunchPad, Prefect, CHGNet and GPAW
	$(VENV)/bin/pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered --cov-fail-under=85

docs: setup ## build the documentation, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet --strict -d build/site

bench: setup ## measure start-up, ingest, genes, generation, and the database at 10 000 crystals (20 minutes)
	$(VENV)/bin/python tests/benchmarks/bench_help.py
	$(VENV)/bin/python tests/benchmarks/bench_ingest.py
	$(VENV)/bin/python tests/benchmarks/bench_genes.py --realize --speed
	$(VENV)/bin/python tests/benchmarks/bench_generation.py --seeds 0
	$(VENV)/bin/python tests/benchmarks/bench_scale.py --size 10000
	$(VENV)/bin/python tests/benchmarks/bench_machinery.py
	$(VENV)/bin/python tests/benchmarks/bench_simulate.py

validate-physics: setup ## known crystals by GPAW and CHGNet beside published values (an hour and a half)
	$(VENV)/bin/python tests/benchmarks/validate_physics.py --write

crash-matrix: setup ## every kill point of a round, and long stops
	WYLOOP_CRASH_EVERY=1 WYLOOP_CRASH_STOPPED=60 $(VENV)/bin/pytest -m crash tests/flows/test_crash_matrix.py -o log_cli=true --log-cli-level=INFO

soak: setup ## 200 rounds of a small campaign under random kills
	$(VENV)/bin/python tests/benchmarks/soak.py --write

bench-sun: setup ## share of stable, unique and new crystals of 1 000 generated ones, twice (many hours; goes on where it was)
	$(VENV)/bin/python tests/benchmarks/bench_sun.py --jobs 2 --write
