# make demo   install into .venv and run the main job on real images
# make test   every check: lint, typecheck, unit
# make long   the walks that take minutes: a week of a line, a tiled run, the plan search, two processes ...
# make coverage  the share of lines that the tests run, by room
# make mutation  small faults in what decides, and whether the tests notice; ARGS='--sample 0' tries all
# make duplicates  code of six lines and more that is there twice
# make audit  the pinned packages against the database of known vulnerabilities
# make docs   the site of docs/, into site/; a broken link or anchor fails it
# make dist   the wheel and the source archive into dist/, the same bytes from the same commit
# make sbom   what they bring: CycloneDX files and lists of licences into dist/sbom/
# make packages  both in clean environments of Python 3.10 to 3.13, see tests/packages.sh
# make triton a Triton server into .triton, for the tests and the benchmark that run against one
# make peers  graphs of other methods into .peers/graphs, which benchmarks/speed/peers.py times
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
PEERS := .peers
DOCS := $(VENV)/.docs
RELEASE := .release
MUTATION := .mutation

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Containers often forbid Python to keep what it compiled: each of the hundred children that the tests
# start, and each worker, would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo install test lint typecheck unit long coverage mutation duplicates audit docs dist sbom notes packages triton peers clean
.NOTPARALLEL:

demo: $(INSTALLED)
	@$(BIN)/hvq-edge demo

install: $(INSTALLED)

# The cheapest first. mypy takes one core for a minute, and the tests leave a part of two unused: it
# runs beside them, and is heard when they have ended.
test: lint
	@said=$$(mktemp); $(MAKE) --no-print-directory typecheck >"$$said" 2>&1 & typecheck=$$!; \
		$(MAKE) --no-print-directory unit; unit=$$?; \
		wait $$typecheck; typecheck=$$?; cat "$$said"; rm "$$said"; \
		exit $$((unit || typecheck))

lint: $(INSTALLED)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { $(BIN)/ruff format --diff --quiet .; exit 1; }
	@$(BIN)/codespell
	@$(BIN)/vulture
	@echo "lint: clean"

# mypy reads no package-dir: two links say that export/ and calibration/ are in hvq_edge.
typecheck: $(INSTALLED)
	@rm -rf $(TYPECHECK) && mkdir -p $(TYPECHECK)/hvq_edge
	@ln -s ../../export ../../calibration $(TYPECHECK)/hvq_edge
	@$(BIN)/mypy

# A file's tests stay together, so that a module's fixtures are made once. Workers with a PyTorch
# thread for each core wait for one another where there are two cores: one thread each is faster. A
# quarter of the time a worker waits for a server, a child or a clock: so there are three for two. With
# a file at a time pytest-xdist waits for ever for a worker that was started in a dead one's place.
PYTEST := pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
unit: $(INSTALLED)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/$(PYTEST) $(ARGS)

# They take four minutes on two cores; CONTRIBUTING.md says what `unit` holds of them and what not.
long: $(INSTALLED)
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/$(PYTEST) -m long $(ARGS)

# Counting makes the tests slower, so CI does not. What the tests start is counted as well.
coverage: $(INSTALLED)
	@$(BIN)/coverage erase
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/coverage run -m $(PYTEST) -m '' $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/python -m benchmarks.coverage_by_room

# mutmut names a module by its file, so it gets the tree as it is installed. What became of a mutant
# is kept until its file changes; make clean forgets it.
mutation: $(INSTALLED)
	@$(BIN)/python -m pip install -qq -c constraints.txt 'mutmut>=3.8'
	@mkdir -p $(MUTATION) && cd $(MUTATION) && rm -rf hvq_edge tests benchmarks
	@cp -Rp hvq_edge tests benchmarks pyproject.toml $(MUTATION)
	@cp -Rp export calibration $(MUTATION)/hvq_edge
	@cd $(MUTATION) && OMP_NUM_THREADS=1 ../$(BIN)/python -m benchmarks.mutation $(ARGS)

# A minute of processor time, so it is no part of lint.
duplicates: $(INSTALLED)
	@$(BIN)/pylint --jobs 2 --score=no hvq_edge export calibration examples benchmarks tests && echo "duplicates: none"

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

# mkdocs.yml is strict. The notice that is switched off is of MkDocs 2, which nothing here uses.
docs: $(DOCS)
	@if ! [ -x $(BIN)/mkdocs ]; then echo "docs: NOT BUILT: what builds them needs Python 3.11"; \
		else NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo "docs: site/index.html"; fi

$(DOCS): $(INSTALLED)
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[docs]'
	@touch $@

# The version is the git tag's. setuptools takes times and owners of a source archive from this machine.
dist: $(RELEASE)/.installed
	@rm -rf dist build
	@umask 022 && export SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} \
		&& $(RELEASE)/bin/python -m build --no-isolation --sdist >$(RELEASE)/said 2>&1 \
		&& cd dist && archive=$$(ls) && tar -xzf $$archive && rm $$archive \
		&& tar --sort=name --mtime=@$$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner --mode=u+rw,go=rX \
			--format=posix --pax-option=delete=atime,delete=ctime,exthdr.name=%d/PaxHeaders/%f \
			-c $${archive%.tar.gz} | gzip -9n >$$archive \
		&& rm -r $${archive%.tar.gz} && cd .. \
		&& $(RELEASE)/bin/python -m build --no-isolation --wheel --outdir dist dist/$$archive >>$(RELEASE)/said 2>&1 \
		|| { cat $(RELEASE)/said; exit 1; }
	@cd dist && sha256sum *

# What pip installs with constraints.txt, on this machine: elsewhere PyTorch may bring other packages.
sbom: $(RELEASE)/.installed
	@mkdir -p dist/sbom
	@for extra in base train; do \
		of=; [ $$extra = base ] || of="[$$extra]"; \
		$(PYTHON) -m venv --clear $(RELEASE)/$$extra \
		&& $(RELEASE)/$$extra/bin/python -m pip install -qq --no-compile -c constraints.txt "hvq-edge$$of @ file://$$(ls $(CURDIR)/dist/*.whl)" \
		&& $(RELEASE)/$$extra/bin/python -m pip uninstall -qq --yes setuptools pip \
		&& $(RELEASE)/bin/cyclonedx-py environment --output-reproducible \
			--output-file dist/sbom/hvq-edge-$$extra.cdx.json $(RELEASE)/$$extra/bin/python \
		&& $(RELEASE)/bin/pip-licenses --python $(RELEASE)/$$extra/bin/python --with-urls --format markdown \
			>dist/sbom/licences-$$extra.md || exit 1; \
	done
	@ls dist/sbom

# What the changelog says of VERSION, for its release.
notes:
	@awk -v heading='## [$(VERSION)] ' '/^(## )?\[/ {on = 0} on {print; said = 1} index($$0, heading) == 1 {on = 1} \
		END {exit !said}' CHANGELOG.md || { echo "CHANGELOG.md says nothing of $(VERSION)" >&2; exit 1; }

packages:
	@tests/packages.sh

$(RELEASE)/.installed: constraints.txt
	@$(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/python -m pip install -qq -c constraints.txt build cyclonedx-bom pip-licenses setuptools setuptools-scm uv
	@touch $@

# nvidia-pytriton (glibc 2.35 or newer; tried on x86-64) brings the server's program. Of its own dependencies
# nothing is installed: it asks for NumPy 1, and the server itself needs none of them.
triton: $(TRITON)/.installed

$(TRITON)/.installed: $(INSTALLED)
	@$(BIN)/python -m pip install -qq --no-deps -c constraints.txt --upgrade --target $(TRITON) nvidia-pytriton
	@cd $(TRITON)/pytriton/tritonserver && cp python_backend_stubs/$$($(CURDIR)/$(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/triton_python_backend_stub backends/python/
	@touch $@

# anomalib brings packages that the project's would have to be made to fit (torchvision, an OpenCV without
# windows), so it stands in an environment of its own. Its graphs are read by the OpenVINO of the project.
peers: $(PEERS)/graphs/peers.json

$(PEERS)/graphs/peers.json: benchmarks/speed/peer_graphs.py
	@$(PYTHON) -m venv $(PEERS)
	@grep -E '^(openvino|onnxruntime)==' constraints.txt >$(PEERS)/constraints.txt
	@$(PEERS)/bin/python -m pip install -qq -c $(PEERS)/constraints.txt \
		'anomalib==2.7.0' torch torchvision nncf openvino onnxruntime onnx onnxscript
	@$(PEERS)/bin/python -W ignore -m benchmarks.speed.peer_graphs $(PEERS)/graphs

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 10) or sys.exit(f"hvq-edge needs Python 3.10 or newer, $(PYTHON) is {v.major}.{v.minor}. Try: make PYTHON=python3.12")'
	@echo "Installing hvq-edge and PyTorch into $(VENV); the first time takes some minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq -c constraints.txt -e '.[train,heic,demo,rtx,factory,test]'
	@touch $@

clean:
	rm -rf $(VENV) $(TYPECHECK) $(AUDIT) $(TRITON) $(PEERS) $(RELEASE) $(MUTATION) .coverage* .site site build dist *.egg-info \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis
