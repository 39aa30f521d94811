# make demo: sets everything up, then runs the factory's main job.    make test: sets everything up, then every check.
# make weights: trains all models anew, as the bundled ones were, in their place (6.5 hours on 2 cores).

PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
SETUP = $(VENV)/.made_from_constraints
# One thread a process unless a part asks for more: the processes of a run share the cores.
export PYTHONWARNINGS = ignore

.PHONY: setup demo test weights clean
setup: $(SETUP)

# torch first, with what it needs (its CPU and CUDA builds need different packages); then exactly what was tested, and nothing
# else: insightface asks for the windowed OpenCV, which needs system libraries, where the headless one does the same work.
$(SETUP): constraints.txt pyproject.toml
	@echo "facemint: setting up $(VENV) (once; a few minutes)"
	@$(PYTHON) -m venv $(VENV) || { echo "facemint: needs Python 3.11 with venv; name it with make PYTHON=..."; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: setup
	$(BIN)/facemint run experiment=demo

test: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest

weights: setup
	$(BIN)/facemint weights

clean:
	rm -rf $(VENV) runs multirun outputs
