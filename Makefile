# make demo   install into .venv and run the main job on real images
# make test   every check: lint, typecheck, unit
#
# PYTHON chooses the interpreter of .venv (make demo PYTHON=python3.12);
# ARGS goes to pytest (make unit ARGS='-k settings').

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TYPECHECK := .typecheck

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo install test lint typecheck unit clean
.NOTPARALLEL:

demo: $(INSTALLED)
	@$(BIN)/hvq-edge demo

install: $(INSTALLED)

# lint, typecheck and unit in this order: the cheapest first, pytest's summary last.
test: lint typecheck unit

lint: $(INSTALLED)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --diff --quiet .; exit 1; }
	@echo "lint: clean"

# The wheel is checked, not the checkout: only there are export/ and calibration/ in hvq_edge.
# setuptools would put files left in build/ by an earlier version into the wheel.
typecheck: $(INSTALLED)
	@rm -rf $(TYPECHECK) build
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --target $(TYPECHECK) .
	@rm -rf build
	@cd $(TYPECHECK) && ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p hvq_edge

# A file's tests stay together, so that a module's fixtures are made once. Two workers with a PyTorch
# thread for each core wait for one another where there are two cores: one thread each is faster.
unit: $(INSTALLED)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n 2 --dist loadfile $(ARGS)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit(f"hvq-edge needs Python 3.10 or newer, $(PYTHON) is {v.major}.{v.minor}. Try: make PYTHON=python3.12")'
	@echo "Installing hvq-edge and PyTorch into $(VENV); the first time takes some minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[train,demo,rtx,factory,test]'
	@touch $@

clean:
	rm -rf $(VENV) $(TYPECHECK) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
