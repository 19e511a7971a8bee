# Everything happens in .venv and dist/, build/, out/, all of which git ignores.
#
#   make demo      the photograph in docs/pictures through the shipped codec and back; no PyTorch needed
#   make test      everything: lint, types, sdist, wheel, the wheel in a bare environment, all tests
#   make aarch64   the kernels cross-compiled, and files exchanged with an emulated 64-bit Arm machine
#
# PYTHON names the interpreter; TORCH what pip installs as PyTorch (a CPU or CUDA build, as your index has it).

PYTHON ?= python3
TORCH ?= torch==2.13.0
KODAK ?= data/kodak
COMPRESSAI_TORCH ?= torch torchvision
COMPRESSAI ?= $(CURDIR)/.venv-compressai/bin/python
EXTRAS ?= dev,export,train,bench,openvino,tensorrt

VENV := .venv
BIN := $(VENV)/bin
PHOTOGRAPH := docs/pictures/coffee.png
FOLDERS := api models training export engines runtime kernels benchmarks weights
SOURCES := pyproject.toml CMakeLists.txt README.md $(shell find $(FOLDERS) -type f -not -name '*.pyc')
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: gpu demo test lint types wheel check-wheel aarch64 picture hexdump figure reference numbers benchmarks \
	compressai clean

demo: $(VENV)/.demo
	$(BIN)/python -m condic.benchmarks.demo $(PHOTOGRAPH) --out out

test: lint types check-wheel $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow an editable install, so it checks an installed tree.
types: $(VENV)/.test
	rm -rf build/typed
	$(BIN)/pip install --quiet --no-deps --target build/typed dist/*.whl
	$(BIN)/mypy

wheel: dist/.built

check-wheel: dist/.built
	.ci/check_wheel $(PYTHON) dist/*.whl $(PHOTOGRAPH)

aarch64: $(VENV)/.demo
	.ci/check_aarch64 $(BIN)/python $(PHOTOGRAPH)

# What the documentation shows, made again: after the shipped model or the format has changed.
picture: $(VENV)/.demo
	$(BIN)/python -m condic.benchmarks.demo $(PHOTOGRAPH) --out out --picture docs/pictures/side-by-side.jpg

hexdump: $(VENV)/.test
	$(BIN)/python docs/make_hexdump.py

figure: $(BIN)/python
	$(BIN)/python docs/make_figure.py

# The references of the command line and of the Python functions, from the program itself.
reference: $(VENV)/.test
	$(BIN)/python docs/make_reference.py

numbers: $(VENV)/.test
	$(BIN)/python docs/make_numbers.py $(KODAK)

benchmarks: $(VENV)/.test
	$(BIN)/python docs/make_benchmarks.py $(KODAK) $(wildcard $(COMPRESSAI))

# CompressAI pins numpy<2 and more: it gets an environment of its own, with condic in it but none of its extras.
compressai: dist/.built
	$(PYTHON) -m venv .venv-compressai
	.venv-compressai/bin/pip install --quiet $(COMPRESSAI_TORCH)
	.venv-compressai/bin/pip install --quiet "$$(echo dist/*.whl)[compressai]"
	.venv-compressai/bin/pip install --quiet --no-deps --force-reinstall dist/*.whl

# What needs an NVIDIA GPU: engines, checks, measures, a file of results. The backend ort-cuda wants an environment of its
# own (docs/gpu.md).
gpu: $(VENV)/.test
	$(BIN)/pip install --quiet pycuda
	$(BIN)/python tests/gpu/run.py --only kernels,tensorrt,training,sanitizers

clean:
	rm -rf $(VENV) build dist out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no venv: on Debian or Ubuntu, apt install python3-venv" >&2; exit 1; }

$(VENV)/.demo: $(BIN)/python $(SOURCES)
	$(BIN)/pip install --quiet '.[cpu]'
	touch $@

$(VENV)/.tools: $(BIN)/python
	$(BIN)/pip install --quiet build 'ruff>=0.8'
	touch $@

dist/.built: $(VENV)/.tools $(SOURCES)
	rm -rf dist
	$(BIN)/python -m build -C cmake.define.CONDIC_WARNINGS_AS_ERRORS=ON --outdir dist .
	touch $@

# PyTorch first, so that its build is the one that was asked for; then the wheel that was built, with its extras.
$(VENV)/.test: dist/.built
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet "$$(echo dist/*.whl)[$(EXTRAS)]"
	$(BIN)/pip install --quiet --no-deps --force-reinstall dist/*.whl
	touch $@
