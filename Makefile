# One command runs the main job, one passes the tests; each sets up all it needs, in .venv.
#
#   make train                  squeeze training on the embedded digits, PyTorch
#   make train BACKEND=keras    the same with Keras on TensorFlow
#   make test                   lint, then types beside the test suite
#   make test-all               the same with the slow tests
#   make docs                   the documentation's site, in build/docs, and its notebooks
#   make mutants ROOM=core      small errors put into a room of stcore: does a test notice? SAMPLE of them, by SEED
#
# Tests run in WORKERS processes, 2 by default, of up to 6 GB each. A skip without a name in tests/skips.py fails them.

PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell command -v $(p))))
VENV ?= .venv
BACKEND ?= torch
ARGS ?=
WORKERS ?= 2
ROOM ?= core
SAMPLE ?= 200
SEED ?= 0
BIN := $(VENV)/bin

.PHONY: train test test-all lint types pytest pytest-all docs mutants clean

train: $(VENV)/$(BACKEND)
	$(BIN)/stcli train --backend $(BACKEND) $(ARGS)

test: lint
	$(MAKE) --no-print-directory --jobs 2 types pytest

test-all: lint
	$(MAKE) --no-print-directory --jobs 2 types pytest-all

# An idle worker takes over half of what another has left: neighbours, with the fixtures they share, stay together.
pytest: $(VENV)/dev
	STCORE_STRICT_SKIPS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal --hypothesis-profile=ci -m "not slow" $(ARGS)

pytest-all: $(VENV)/dev
	STCORE_STRICT_SKIPS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The folders install inside the one name `stcore`; mypy sees them so in a copy laid out that way.
types: $(VENV)/dev
	rm -rf build/types
	mkdir -p build/types
	cp -r stcore build/types/
	cp -r backends models cli build/types/stcore/
	cd build/types && $(abspath $(BIN))/mypy --cache-dir $(abspath .mypy_cache) --config-file $(abspath pyproject.toml) -p stcore

mutants: $(VENV)/dev
	$(PIP) install --quiet -c constraints.txt -e '.[mutants]'
	nice -n 19 $(BIN)/python benchmarks/mutants.py $(ROOM) --sample $(SAMPLE) --seed $(SEED) $(ARGS)

docs: $(VENV)/dev
	$(BIN)/python docs/_ext/notebooks.py
	$(BIN)/sphinx-build --fail-on-warning --nitpicky docs build/docs

$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/torch $(VENV)/keras: $(VENV)/%: $(BIN)/pip pyproject.toml constraints.txt
	$(PIP) install --quiet -c constraints.txt -e '.[$*,hub,plots]'
	touch $@

# uv installs in a third of pip's time, from the indexes that pip is set up with; where it cannot, pip does.
EXAMPLE := tests/plugin_package
EXTRAS := torch,keras,jax,timm,hub,datasets,onnx,huggingface,autoattack,tensorboard,wandb,trackio,plots,search,cluster,docs,dev
PIP := $(BIN)/pip --disable-pip-version-check
set_for_pip = "$${PIP_$(1)-$$($(PIP) config get global.$(2) 2> /dev/null)}"
UV = UV_INDEX_STRATEGY=unsafe-best-match \
	UV_DEFAULT_INDEX=$(call set_for_pip,INDEX_URL,index-url) \
	UV_EXTRA_INDEX_URL=$(call set_for_pip,EXTRA_INDEX_URL,extra-index-url) \
	UV_FIND_LINKS=$(call set_for_pip,FIND_LINKS,find-links) \
	$(BIN)/uv --quiet

# Byte code is made by all cores at once.
$(VENV)/dev: $(BIN)/pip pyproject.toml constraints.txt $(EXAMPLE)/pyproject.toml
	$(PIP) install --quiet -c constraints.txt uv || true
	$(UV) pip install --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]' || \
		$(PIP) install --quiet --no-compile -c constraints.txt -e '.[$(EXTRAS)]'
	$(PIP) install --quiet --no-index --no-deps --no-build-isolation -e $(EXAMPLE)
	$(BIN)/python -m compileall -q -j 0 -x '/tests/' $(VENV)/lib > /dev/null 2>&1 || true  # some packages bring templates that are no Python
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
