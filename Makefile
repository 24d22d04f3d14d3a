# Every target sets itself up on a machine that has only python3 (with pip and venv) and make.
PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
OUT ?= demo
SECONDS ?= 600

.PHONY: demo test shuffled coverage mutate slow fuzz bench experiments experiments-fast docs check compat lint types layers lock wheel versions audit clean

demo: .venv/ready  ## train, wrap, compare; writes demo/report.html for a browser
	.venv/bin/mcbn demo --out $(OUT)

# Tests of one file share what they build, so they stay in one process.
WORKERS ?= 2
PARALLEL := -n $(WORKERS) --dist loadfile

test: .venv/ready  ## the ordinary test suite, in so many WORKERS
	.venv/bin/pytest -m "not slow" $(PARALLEL)

ORDER ?= $(shell date +%s)

shuffled: .venv/ready  ## the ordinary tests in random order; ORDER=seed repeats one
	.venv/bin/pytest -m "not slow" $(PARALLEL) -p randomly --randomly-dont-reset-seed --randomly-seed=$(ORDER)

# The code that keeps and reads the user's data: not one branch of it is left untried.
KEEPERS := bank cell checkpoints columns datafiles declaration drawfiles durable files packed plain \
	prediction_tables predictions store
comma := ,
COVERAGE := .venv/bin/coverage

coverage: .venv/ready  ## which branches the ordinary tests take
	$(COVERAGE) erase
	$(COVERAGE) run -m pytest -m "not slow" $(PARALLEL)
	$(COVERAGE) combine --quiet
	$(COVERAGE) report --fail-under=95
	$(COVERAGE) report --fail-under=100 --include=$(subst $() ,$(comma),$(KEEPERS:%=mcbn/%.py))

mutate: .venv/ready  ## break scores, calibration, bank and store in small ways; 90 % must be noticed
	OMP_NUM_THREADS=1 .venv/bin/mutmut run
	.venv/bin/mutmut results
	.venv/bin/mutmut export-cicd-stats
	.venv/bin/python tests/helpers/mutants.py

slow: .venv/ready  ## the long statistical tests
	.venv/bin/pytest -m slow

fuzz: .venv/ready  ## hostile files for every reader, guided by coverage; SECONDS are shared
	.venv/bin/python tests/hostile/fuzz.py $(SECONDS)

bench: .venv/ready  ## the benchmarks; writes benchmarks/results.json and the tables of the docs
	.venv/bin/python benchmarks/engines.py
	.venv/bin/python benchmarks/streaming.py
	.venv/bin/python benchmarks/scoring.py
	.venv/bin/python experiments/bench_study.py

# In the order of their length; each goes on from where it was cut short.
EXPERIMENTS := toy elbo batch_size segmentation images uci

experiments: .venv/ready  ## the papers' experiments; hours, resumed after an interruption
	for name in $(EXPERIMENTS); do .venv/bin/python experiments/$$name.py || exit 1; done

experiments-fast: .venv/ready  ## the same in a minute or two, at a scale that proves nothing
	for name in $(EXPERIMENTS); do .venv/bin/python experiments/$$name.py --fast || exit 1; done

docs: .venv/ready  ## the pages as a site in docs/_build/html; a warning is an error
	.venv/bin/sphinx-build -b html -n -W --keep-going docs docs/_build/html

check: lint types layers docs test  ## all that must pass before a change lands

compat: .venv-compat/ready  ## which networks are served and which refused; writes docs/compatibility.md
	.venv-compat/bin/python tests/networks/matrix.py

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/ready
	.venv/bin/mypy

layers: .venv/ready
	.venv/bin/lint-imports

wheel: .venv/ready  ## build the package, install it alone in a fresh environment, and test that
	rm -rf dist .venv-wheel
	$(UV) build --quiet
	$(UV) build --quiet --wheel --out-dir dist/tree
	$(UV) venv --quiet --python $(PYTHON) .venv-wheel
	$(UV) pip install --quiet --python .venv-wheel dist/*.whl
	MCBN_DIST=dist MCBN_INSTALLED=$(CURDIR)/.venv-wheel/bin/python .venv/bin/pytest tests/integration/test_wheel.py

# The core of the test suite, and what it needs beside the package.
CORE := $(patsubst %,tests/test_%.py,bank collection engines evaluation predictive samplers)
CORE_NEEDS := "beartype>=0.21" "hypothesis>=6.130" "pytest>=9" "scoringrules>=0.10" "timm>=1.0" "transformers>=5"

# The interpreter of the newest; the oldest of all are not built for the newest interpreter.
NEWEST_PYTHON ?= $(PYTHON)

versions: .venv-lowest/ready .venv-highest/ready  ## the core tests with the oldest and the newest versions
	.venv-lowest/bin/pytest -m "not slow" $(CORE)
	.venv-highest/bin/pytest -m "not slow" $(CORE)

.venv-lowest/ready: SETTINGS := --resolution lowest-direct
.venv-highest/ready: INTERPRETER := $(NEWEST_PYTHON)
.venv-lowest/ready .venv-highest/ready: pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(or $(INTERPRETER),$(PYTHON)) $(@D)
	$(UV) pip compile pyproject.toml --quiet $(SETTINGS) --python $(@D) --output-file $(@D)/pins.txt
	$(UV) pip install --quiet --python $(@D) --requirements $(@D)/pins.txt $(CORE_NEEDS)
	$(UV) pip install --quiet --python $(@D) --no-deps --editable .
	touch $@

# What users install: the package with every extra of theirs, as pinned.
EXTRAS := dask onnx pandas parquet ray serve timm xarray
AUDITED := .venv-audit/lib/python3*/site-packages

audit: .venv/ready .venv-audit/ready  ## undeclared imports, licences, bill of materials, known vulnerabilities
	.venv/bin/deptry mcbn
	mkdir -p audit
	$(UV) tool run --quiet pip-licenses@5.5.5 --python .venv-audit/bin/python --from=mixed --partial-match \
		--fail-on "GPL;General Public License;UNKNOWN" --ignore-packages cuda-toolkit \
		--format=markdown --output-file audit/licences.md
	$(UV) tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment .venv-audit \
		--output-reproducible --output-file audit/sbom.json
	$(UV) tool run --quiet pip-audit@2.10.1 --strict --path $(AUDITED)

lock: $(UV)  ## pin every dependency, with hashes and without hosts
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --quiet --output-file requirements.lock
	$(UV) pip compile pyproject.toml --extra compat --universal --python-version 3.11 \
		--constraints requirements.lock --generate-hashes --quiet --output-file requirements-compat.lock

.venv/ready: requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --python .venv --require-hashes requirements.lock
	$(UV) pip install --quiet --python .venv --no-deps --editable .
	touch $@

.venv-compat/ready: requirements-compat.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv-compat
	$(UV) pip sync --quiet --python .venv-compat --require-hashes requirements-compat.lock
	$(UV) pip install --quiet --python .venv-compat --no-deps --editable .
	touch $@

.venv-audit/ready: requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(@D)
	$(UV) pip compile pyproject.toml --quiet $(EXTRAS:%=--extra %) --constraints requirements.lock \
		--generate-hashes --python $(@D) --output-file $(@D)/pins.txt
	$(UV) pip sync --quiet --python $(@D) --require-hashes $(@D)/pins.txt
	touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet "uv>=0.9"

clean:
	rm -rf .venv .venv-* .uv demo dist audit mutants docs/_build
