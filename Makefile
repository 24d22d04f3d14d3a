# What people use; each target makes the environment that it needs. What maintainers use besides
# is in tools/Makefile: `make -C tools help`.
include tools/common.mk

OUT ?= demo
DATA ?= digits

.DEFAULT_GOAL := help
.PHONY: help demo test integration check docs bench clean

help:  ## list these targets
	$(LIST) Makefile
	@echo "More, for maintainers: make -C tools help"

demo: .venv-demo/ready  ## train small networks and compare methods: demo/report.html (DATA=mnist)
	.venv-demo/bin/mcbn demo --data $(DATA) --out $(OUT)

test: .venv/ready  ## run the unit tests in two processes (WORKERS=2), most with every annotation as an assertion
	.venv/bin/pytest -m "not slow and not unchecked" $(PARALLEL) --ignore tests/integration --ignore $(SECOND_DEVICE) \
		--jaxtyping-packages=mcbn,typecheck.strict
	.venv/bin/pytest -m "not slow and unchecked" $(PARALLEL) --ignore tests/integration --ignore $(SECOND_DEVICE)
	.venv/bin/pytest -n $(WORKERS) $(SECOND_DEVICE)

integration: .venv/ready  ## test the site, the built package, the example service and the pages' own code
	$(MAKE) -C tools package
	MCBN_DIST=dist MCBN_INSTALLED=$(CURDIR)/.venv-wheel/bin/python \
		.venv/bin/pytest $(PARALLEL) tests/integration

check:  ## run all that must pass before a change lands
	$(MAKE) -C tools lint types layers
	$(MAKE) docs test integration

docs: .venv/ready  ## build the documentation in docs/_build/html; a warning is an error
	.venv/bin/sphinx-build -q -b html -n -W --keep-going docs docs/_build/html

bench: .venv-bench/ready  ## run the benchmarks; writes their results and the tables of the documentation
	.venv-bench/bin/python benchmarks/engines.py
	.venv-bench/bin/python benchmarks/streaming.py
	.venv-bench/bin/python benchmarks/scoring.py
	.venv-bench/bin/python benchmarks/command.py

clean:  ## remove the environments and all that these targets wrote
	rm -rf .venv .venv-* .uv demo dist audit mutants docs/_build
