# The same commands here and in CI. Everything is set up on the first call: see `ready` below.
#   make demo | test | test-slow | test-tf | test-timm | test-zoo | test-c | test-c-arm | test-cuda-emulated | test-cuda-operators | lint | format | bench | docs |
#   site | build | wheel | test-wheel | clean
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
TORCH ?= torch==2.13.0
TENSORFLOW ?= tensorflow-cpu
C_FILES = $(shell git ls-files 'csrc/*.c' 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'tests/c/*.c' 'tests/c/*.h' 'tests/c/*.cpp' 'tests/fuzz/*.c')
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-slow test-tf test-timm test-zoo test-c test-c-arm test-cuda-emulated lint format bench docs site build wheel test-wheel fuzz test-asan clean

demo: build
	$(PY) examples/digits.py

test: build test-c
	$(PY) -m pytest

test-slow: build test-c
	$(PY) -m pytest -m 'slow or not slow'

# Both forms of dopt, with TensorFlow and onnxruntime in an environment of their own.
test-tf: build $(VENV)-tf/.ready
	PYTHONPATH=. $(VENV)-tf/bin/python -m pytest tests/dopt tests/examples/test_dopt_examples.py

# Models of timm, without weights, on venusA. torch, its vision part and timm in an environment of their own: about 6 GB.
TIMM ?= torch==2.14.1 torchvision==0.29.1 timm
test-timm: $(VENV)-timm/.ready
	mkdir -p build/timm && git ls-files -z | xargs -0 cp --parents -u -t build/timm
	cd build/timm && LINGER_CUDA=0 $(CURDIR)/$(VENV)-timm/bin/python setup.py -q build_ext --inplace
	cd build/timm && PYTHONPATH=. $(CURDIR)/$(VENV)-timm/bin/python -m pytest -p no:cacheprovider tests/timm_models/case_models.py

# A thousand steps of every net of the zoo, on one thread and two, with AVX2 and AVX-512: hours. NETS='-k DS-CNN' for some.
test-zoo: build
	$(PY) -m pytest -rP tests/zoo/case_steps.py $(NETS)

test-c: $(VENV)/.ready
	$(MAKE) -s -j$(shell nproc 2>/dev/null || echo 2) -C tests/c

# The same for ARM, emulated: needs Debian's gcc-aarch64-linux-gnu and qemu-user.
test-c-arm:
	$(MAKE) -s -j$$(nproc) -C tests/c ARCH=aarch64 CC=aarch64-linux-gnu-gcc OUT=../../build/test-c-arm RUN="qemu-aarch64 -cpu max" \
		SANITIZE="-fsanitize=undefined -fno-sanitize-recover=all -static"

# The CUDA kernels, run on the CPU by an emulator under sanitizers: no GPU, no toolkit.
test-cuda-emulated: $(VENV)/.ready
	$(MAKE) -s -j$(shell nproc 2>/dev/null || echo 2) -C tests/c/cuda

# The operators' Python tests, unchanged, on the CUDA kernels and adapters, emulated. OPERATOR_TESTS=tests/ops: all of them.
OPERATOR_TESTS ?= tests/ops/test_linear.py tests/ops/test_relu.py tests/ops/test_mul.py tests/ops/test_cat.py tests/ops/test_glu.py
test-cuda-operators: build
	$(MAKE) -s -j$(shell nproc 2>/dev/null || echo 2) -C tests/c/cuda PYTHON=$(CURDIR)/$(PY) operators
	LGR_EMULATED_LIBRARY=build/test-cuda/operators/emulated.so $(PY) -m pytest -p tests.emulated $(OPERATOR_TESTS)

lint: $(VENV)/.ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict linger dopt
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FILES)
	$(VENV)/bin/codespell $(shell git ls-files)
	LINGER_WERROR=1 LINGER_CUDA=0 $(PY) setup.py -q build_ext --build-lib build/werror

format: $(VENV)/.ready
	$(PY) -m ruff check -q --fix .
	$(PY) -m ruff format -q .
	$(VENV)/bin/clang-format -i $(C_FILES)

bench: build
	$(PY) -m tests.bench

docs: build
	$(PY) -m linger.chip > docs/operators.md
	$(PY) -m tests.zoo > docs/zoo.md
	$(PY) -m linger.settings > docs/guide/configuration.md
	$(PY) -m linger.settings zh > docs/zh/guide/configuration.md
	$(PY) -m pytest tests/test_docstrings.py tests/guide

# The site in build/site, in an environment of its own: it reads the sources and needs no torch.
site: $(VENV)-site/.ready
	NO_MKDOCS_2_WARNING=1 $(VENV)-site/bin/mkdocs build --strict

build: $(VENV)/.ready
	$(PY) setup.py -q build_ext --inplace

# One wheel for Python 3.10 and newer, torch 2.10 and newer: CUDA kernels when nvcc is there, libyaml inside, the lowest
# manylinux tag that auditwheel confirms.
wheel: $(VENV)/.ready
	rm -rf build/wheel dist
	set -o pipefail; $(PY) -m pip wheel -v --no-deps --no-build-isolation -w build/wheel . 2>&1 | \
		grep -Ev '^ *(copying|adding|creating|writing|reading|running|warning: no previously) '
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m auditwheel repair --exclude libtorch_cpu.so -w dist build/wheel/*.whl
	@ls dist/*.whl

# Into fresh environments of every Python from 3.10 that is here. With another torch: make test-wheel TORCH=torch==2.10.0
test-wheel: wheel
	$(PY) tests/wheel/run.py dist/*.whl "$(TORCH)"

# Any bytes through what reads files, for SECONDS each; what is found stays in build/fuzz.
SECONDS ?= 60
fuzz: build
	$(MAKE) -s -C tests/fuzz PYTHON=$(CURDIR)/$(PY) SECONDS=$(SECONDS)

# The Python suite, or ASAN_TESTS of it, with the extension under ASan and UBSan, in a copy of the tree. Takes an hour or two.
ASAN_TESTS ?= tests
test-asan: $(VENV)/.ready
	mkdir -p build/asan
	git ls-files -z -co --exclude-standard | xargs -0 cp -pu --parents -t build/asan
	cd build/asan && LINGER_SANITIZE=address,undefined LINGER_CUDA=0 $(CURDIR)/$(PY) setup.py -q build_ext --inplace
	cd build/asan && PYTHONPATH=. LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		$(CURDIR)/$(PY) -m pytest -p no:cacheprovider $(ASAN_TESTS)

clean:
	rm -rf build dist linger/*.so dopt/dopt_tf/*.so *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A virtual environment with torch, the tools and linger itself (editable); done again when pyproject.toml changes.
$(VENV)/.ready: pyproject.toml
	@PYTHON="$(PYTHON)" bash .ci/system_packages
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q "$(TORCH)" "setuptools>=77"
	$(PY) -m pip install -q --no-build-isolation -e ".[dev]"
	$(PY) -m pip install -q --no-deps aeon # recordings of examples/vowels.py; its dependencies are not needed
	touch $@

$(VENV)-tf/.ready: pyproject.toml
	test -x $(VENV)-tf/bin/python || $(PYTHON) -m venv $(VENV)-tf
	$(VENV)-tf/bin/python -m pip install -q "$(TORCH)" "$(TENSORFLOW)" onnx onnxruntime scikit-learn tqdm rich "pytest>=8" hypothesis
	touch $@

$(VENV)-timm/.ready: pyproject.toml
	test -x $(VENV)-timm/bin/python || $(PYTHON) -m venv $(VENV)-timm
	$(VENV)-timm/bin/python -m pip install -q $(TIMM) onnx "setuptools>=77" "pytest>=8" hypothesis
	touch $@

$(VENV)-site/.ready: Makefile
	test -x $(VENV)-site/bin/python || $(PYTHON) -m venv $(VENV)-site
	$(VENV)-site/bin/python -m pip install -q "mkdocs-material>=9.5,<10" "mkdocstrings[python]" jieba "ruff==0.17.5"
	touch $@
