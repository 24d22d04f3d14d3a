# Read by both Makefiles: the environments, and how the tests are spread over processes.
# Each environment is made on a machine that has only python3 (with pip and venv) and make.
PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)

# Tests of one file share what they build, so they stay in one process.
WORKERS ?= 2
PARALLEL := -n $(WORKERS) --dist loadfile
# PyTorch counts the devices of a process at its first derivative, so this one is made in its own.
SECOND_DEVICE := tests/laws/test_second_device.py

.venv/ready: tools/locks/dev.lock
# The tests start many processes, which would each compile what they import where Python is told to
# write no bytecode.
.venv/ready .venv-bench/ready: SYNC := --compile-bytecode
.venv-demo/ready: tools/locks/demo.lock
.venv-compat/ready: tools/locks/compat.lock
.venv-bench/ready: tools/locks/bench.lock

.venv/ready .venv-demo/ready .venv-compat/ready .venv-bench/ready: pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(@D)
	$(UV) pip sync --python $(@D) --require-hashes $(SYNC) $(filter %.lock,$^)
	$(UV) pip install --quiet --python $(@D) --no-deps --editable .
	touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet "uv>=0.9"

# Prints the targets of a Makefile with their sentences.
LIST = @awk -F ':.*\#\# ' '/^[a-z][a-z-]*:.*\#\# / {printf "  %-18s%s\n", $$1, $$2}'
