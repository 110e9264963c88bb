# The developer's verbs. Each installs what it needs and is missing (tools/prepare says what and why), then does its job.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check
PYTHON_DIRS := src shim hooks allocator cli simgpu libcap_mem tests bench tools
C_SOURCES = $(wildcard $(shell git ls-files '*.c' '*.h'))
BUILD_INPUTS := $(wildcard $(shell git ls-files libcap_mem shim hooks simgpu CMakeLists.txt pyproject.toml | grep -v '\.py$$'; git ls-files '*/generate.py' shim/c/write_sentences.py src/gpuportion/errors.py))

.PHONY: build demo test test-long test-storms test-engines torch-check gpu-check mutants lint format bench bench-launch bench-interpose bench-allocator bench-mig bench-placement wheel clean
.DELETE_ON_ERROR:

build: build/.installed

$(VENV)/.made:
	@tools/prepare build
	python3 -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) 'scikit-build-core>=1.0' 'cffi>=2.1' 'cmake>=3.22' ninja
	@touch $@

$(VENV)/.clients: $(VENV)/.made pyproject.toml
	$(PIP) --group clients
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(PIP) --group dev
	@touch $@

$(VENV)/.mutants: $(VENV)/.made pyproject.toml
	$(PIP) --group mutants
	@touch $@

# An editable install: Python runs from this folder, the C parts are rebuilt when their sources change.
build/.installed: $(VENV)/.made $(BUILD_INPUTS)
	PATH=$(abspath $(VENV)/bin):$$PATH $(PIP) --no-build-isolation --editable .
	@mkdir -p build && touch $@

demo: build $(VENV)/.clients
	@tools/prepare containers
	@$(VENV)/bin/gpuportion demo

test: build $(VENV)/.clients $(VENV)/.dev
	@tools/prepare containers test
	@$(PY) tools/two_lanes.py $(PYTEST_ARGS)

# The same tests with their storms at full size, and on other engines.
test-long: build $(VENV)/.clients $(VENV)/.dev
	@tools/prepare containers test
	GPUPORTION_TEST_LONG=1 $(PY) -m pytest --timeout 3600 $(PYTEST_ARGS)
	$(MAKE) test-engines

# The account's storms alone, at full size: 64 processes of 8 threads for a minute, 10 000 kills, 1 000 stops.
test-storms: build $(VENV)/.clients $(VENV)/.dev
	GPUPORTION_TEST_LONG=1 $(PY) -m pytest -s --durations=0 tests/native/test_ledger_storm.py tests/native/test_cuda_storm.py $(PYTEST_ARGS)

# The tests of engines on the engines of later Debian suites: 130 MB to download each, unpacked in build/engines.
ENGINE_SUITES := trixie sid
ENGINE_TESTS := $(addprefix tests/integration/test_,beside_nvidia.py checkpoint.py checkpoint_engines.py cri.py docker.py engines.py install.py)
test-engines: build $(VENV)/.clients $(VENV)/.dev
	@tools/prepare containers test
	set -e; for suite in $(ENGINE_SUITES); do \
	    tools/later-engines $$suite build/engines/$$suite; \
	    GPUPORTION_TEST_ENGINES=$(CURDIR)/build/engines/$$suite $(PY) -m pytest -rs $(ENGINE_TESTS); done

# PyTorch's three allocators on the simulated driver, under a grant: on demand, for it downloads 2.2 GB the first time.
torch-check: build
	@$(PY) -m tests.torch.check

# What is carried to a machine with a GPU, in build/gpu; there, build/gpu/run proves or disproves (docs/gpu-results.md).
# Where this machine has a GPU, it is run here, at once; elsewhere (status 3) on a simulated one, as a test of the suite.
gpu-check: build $(VENV)/.dev
	$(PY) tests/gpu/pack
	@$(PY) build/gpu/run $(GPU_CHECK); status=$$?; [ $$status = 3 ] || exit $$status; \
	exec $(PY) build/gpu/run --sim h100-80gb --brief $(GPU_CHECK)

# Breaks copies of the project on purpose, and wants to see tests fail (CONTRIBUTING.md).
mutants: build $(VENV)/.dev $(VENV)/.mutants
	@tools/prepare containers test
	@$(PY) -m tools.mutants $(MUTANTS)

lint: build $(VENV)/.dev
	$(VENV)/bin/ruff check $(PYTHON_DIRS)
	$(VENV)/bin/ruff format --check $(PYTHON_DIRS)
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(C_SOURCES)

format: $(VENV)/.dev
	$(VENV)/bin/ruff check --fix $(PYTHON_DIRS)
	$(VENV)/bin/ruff format $(PYTHON_DIRS)
	$(VENV)/bin/clang-format -i $(C_SOURCES)

bench: bench-launch bench-interpose bench-allocator bench-mig bench-placement

bench-launch bench-interpose bench-allocator bench-placement: bench-%: build $(VENV)/.clients
	@tools/prepare containers
	@$(PY) bench/$*.py

# Arithmetic alone: no container, no daemon.
bench-mig: build $(VENV)/.clients
	@$(PY) bench/mig.py

# On x86-64 the one for aarch64 as well, by cross build; WHEELS="x86_64" makes only that one.
wheel: $(VENV)/.made
	@tools/prepare wheel
	$(PIP) 'wheel>=0.40'
	@$(PY) tools/wheels.py $(WHEELS)

clean:
	rm -rf build dist $(VENV)
