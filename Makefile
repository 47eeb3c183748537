# make demo   install into .venv and run the main job on real images
# make test   every check: lint, typecheck, unit
# make audit  the pinned packages against the database of known vulnerabilities
# make triton a Triton server into .triton, for the tests and the benchmark that run against one
#
# PYTHON chooses the interpreter of .venv (make demo PYTHON=python3.12);
# ARGS goes to pytest (make unit ARGS='-k settings').

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TYPECHECK := .typecheck
AUDIT := .audit
TRITON := .triton

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Containers often forbid Python to keep what it compiled: each of the hundred children that the tests
# start, and each worker, would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo install test lint typecheck unit audit triton clean
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
	@cp -R benchmarks $(TYPECHECK)
	@cd $(TYPECHECK) && ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p hvq_edge -p benchmarks

# A file's tests stay together, so that a module's fixtures are made once. Workers with a PyTorch
# thread for each core wait for one another where there are two cores: one thread each is faster. A
# quarter of the time a worker waits for a server, a child or a clock: so there are three for two.
unit: $(INSTALLED)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# It needs the network, so it is no part of test; without it, it says so and fails nobody. pip-audit
# stands in an environment of its own, ends with 1 for what it found and for what it lacked alike,
# and with 0 where it could look up nothing.
audit:
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip install -qq 'pip-audit>=2.7' >$(AUDIT)/said 2>&1 \
		&& $(AUDIT)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip \
			>$(AUDIT)/said 2>&1 && ! grep -q 'could not be audited' $(AUDIT)/said \
		&& echo "audit: no known vulnerability" \
		|| if grep -Eq '^Found [0-9]+ known vulnerabilit' $(AUDIT)/said; \
			then cat $(AUDIT)/said; exit 1; \
			elif grep -q 'could not be audited' $(AUDIT)/said; \
			then echo "audit: NOT RUN for $$(grep -c 'could not be audited' $(AUDIT)/said)" \
				"packages: $$(grep -m 1 'could not be audited' $(AUDIT)/said | tr -s ' ')"; \
			else echo "audit: NOT RUN: $$(tail -n 1 $(AUDIT)/said)"; fi

# nvidia-pytriton (glibc 2.35 or newer; tried on x86-64) brings the server's program. Of its own dependencies
# nothing is installed: it asks for NumPy 1, and the server itself needs none of them.
triton: $(TRITON)/.installed

$(TRITON)/.installed: $(INSTALLED)
	@$(BIN)/python -m pip install -qq --no-deps -c constraints.txt --upgrade --target $(TRITON) nvidia-pytriton
	@cd $(TRITON)/pytriton/tritonserver && cp python_backend_stubs/$$($(CURDIR)/$(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/triton_python_backend_stub backends/python/
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit(f"hvq-edge needs Python 3.10 or newer, $(PYTHON) is {v.major}.{v.minor}. Try: make PYTHON=python3.12")'
	@echo "Installing hvq-edge and PyTorch into $(VENV); the first time takes some minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[train,heic,demo,rtx,factory,test]'
	@touch $@

clean:
	rm -rf $(VENV) $(TYPECHECK) $(AUDIT) $(TRITON) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
