# Every target sets itself up on a machine that has only python3 (with pip and venv) and make.
PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
OUT ?= demo

.PHONY: demo test slow bench experiments experiments-fast check lint types layers lock clean

demo: .venv/ready  ## train, wrap, compare; writes demo/report.html for a browser
	.venv/bin/mcbn demo --out $(OUT)

test: .venv/ready  ## the ordinary test suite
	.venv/bin/pytest -m "not slow"

slow: .venv/ready  ## the long statistical tests
	.venv/bin/pytest -m slow

bench: .venv/ready  ## the benchmarks; writes benchmarks/results.json and the tables of the docs
	.venv/bin/python benchmarks/engines.py
	.venv/bin/python benchmarks/streaming.py
	.venv/bin/python experiments/bench_study.py

# In the order of their length; each goes on from where it was cut short.
EXPERIMENTS := toy elbo batch_size segmentation images uci

experiments: .venv/ready  ## the papers' experiments; hours, resumed after an interruption
	for name in $(EXPERIMENTS); do .venv/bin/python experiments/$$name.py || exit 1; done

experiments-fast: .venv/ready  ## the same in a minute or two, at a scale that proves nothing
	for name in $(EXPERIMENTS); do .venv/bin/python experiments/$$name.py --fast || exit 1; done

check: lint types layers test  ## all that must pass before a change lands

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/ready
	.venv/bin/mypy

layers: .venv/ready
	.venv/bin/lint-imports

lock: $(UV)  ## pin every dependency, with hashes and without hosts
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --quiet --output-file requirements.lock

.venv/ready: requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync --quiet --python .venv --require-hashes requirements.lock
	$(UV) pip install --quiet --python .venv --no-deps --editable .
	touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet "uv>=0.9"

clean:
	rm -rf .venv .uv demo
