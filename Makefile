# make demo   the main job: four nights of one model line, through the real Airflow DAG
# make airflow   Airflow's web interface on the demo line, until Ctrl+C
# make test   the tests;   make check   style, types, import contracts;   make bench   how fast the parts are
# make scoreboard   what we claim, and whether it holds
.DEFAULT_GOAL := help
.PHONY: help demo airflow test test-slow test-cluster test-mutants check lock install bench scoreboard clean

VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
SEED ?= 0
LINE ?= demo-line
PORT ?= 8080
# Where pip is told of a folder with wheels, uv is told too; elsewhere uv picks torch's build for this machine.
UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_FIND_LINKS
BACKEND := $(if $(UV_FIND_LINKS),,--torch-backend=auto)
export PYTHONWARNINGS ?= ignore
export DO_NOT_TRACK := 1
# Without bytecode every process would compile its large libraries anew.
unexport PYTHONDONTWRITEBYTECODE

help:
	@sed -n '1,4s/^# //p' Makefile

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(BACKEND) -c constraints.txt -e '.[steps,airflow,marking,quantised,formats,dev]'
	@touch $@

demo: install
	@$(BIN)/retain demo demo-line --seed $(SEED)

# LINE: a workspace with a .retain/lines.yaml; RETAIN_DATABASE: another database than SQLite, by its SQLAlchemy URL.
airflow: install
	@$(BIN)/python -m cl_steps.orchestration.serve $(LINE) --port $(PORT)

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What needs Node.js, MLflow or an image to build on says so, and is left out where that is not there.
test-slow: install
	$(BIN)/python -m pytest -m slow

# Needs a KUBECONFIG, kubectl and the two images: tests/cluster/README.md.
test-cluster: install
	$(BIN)/python -m pytest -m cluster -v tests/cluster

# Hours; begun again it goes on. MUTANTS: what to say to it, as tests/mutants/README.md has it.
test-mutants: install
	nice -n 15 $(BIN)/python -m tests.mutants $(MUTANTS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python tests/benchmarks/run.py

# Also puts the table into tests/benchmarks/README.md.
scoreboard: install
	@$(BIN)/python -m tests.benchmarks.scoreboard

lock: install
	@(echo "# The one lock: 'make lock' makes it from pyproject.toml. torch is pinned there alone: each machine gets its own build."; \
	  $(BIN)/uv pip compile pyproject.toml --all-extras --universal --quiet --no-annotate --no-header \
	  | grep -vE '^(nvidia|cuda|triton|torch)') > constraints.txt.new
	@mv constraints.txt.new constraints.txt

clean:
	rm -rf $(VENV) demo-line
