# Both `make demo` and `make test` do all their set-up from a bare clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?=
# A folder of wheels that pip is configured to look in (a CPU build of torch, say) holds for uv too.
export UV_FIND_LINKS ?= $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)
export SPARSIFY_DISABLE_TRITON ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export DVC_NO_ANALYTICS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Threads that wait must not take the cores of those that work, and imports must not recompile.
export OMP_WAIT_POLICY ?= passive
export PYTHONDONTWRITEBYTECODE :=
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test slow bench faults image lint clean
.DEFAULT_GOAL := demo

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "langsae needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

# All studies, or one: make demo STUDY=flores_exploration
demo: setup
	langsae profile demo
	langsae repro $(if $(STUDY),figures_$(STUDY),)
	langsae verify $(if $(STUDY),--study $(STUDY),)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

slow: setup
	$(BIN)/python -m pytest -m slow

bench: setup
	env -u OMP_WAIT_POLICY $(BIN)/python -m bench

# An hour; mounting the small disks needs root. Writes docs/faults.md
faults: setup
	PYTHONPATH=tests:. $(BIN)/python -m faults

# Builds the Dockerfile without a daemon and runs the smoke profile in it: root, Debian, 25 minutes
image:
	.ci/image

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) artifacts scratch .pytest_cache .ruff_cache build src/*.egg-info
