# The commands for developers. `pip install .` needs none of this.
CC ?= gcc
PYTHON ?= python
C_FLAGS = -Icsrc -std=gnu11 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra
KERNELS = $(wildcard csrc/*.c csrc/*/*.c)
QUADMATH = $(shell echo '\#include <quadmath.h>' | $(CC) -E - >/dev/null 2>&1 \
    && echo -DMG_QUADMATH -lquadmath)

.PHONY: help
help:
	@echo "Every day:"
	@echo "  make build           compile in place what changed"
	@echo "  make test            the fast tests; a minute"
	@echo "  make test_all        all tests that CI runs, the slow ones too; some five minutes"
	@echo "  make lint            ruff, cython-lint, mypy, stubtest, pyright, clang-format"
	@echo "  make format          ruff format, the fixes that ruff makes by itself, clang-format"
	@echo "Longer checks:"
	@echo "  make test_long       long fuzzing, killed trainings; hours"
	@echo "  make ulp             errors of exp, tanh, sigmoid, ... over all float32 values; 5 minutes"
	@echo "  make isa             every instruction set against the scalar one, to the bit"
	@echo "  make neon            the same for NEON, under qemu"
	@echo "  make gemm            the products, for all shapes and layouts"
	@echo "  make gemm_neon       the same for NEON, under qemu"
	@echo "  make gemm_tsan       the products under the thread sanitizer"
	@echo "  make recurrent_tsan  the recurrent kernels under the thread sanitizer"
	@echo "  make sanitized       the C checks under the address and undefined sanitizers; 30 minutes"
	@echo "  make asan            the extension and the tests under these sanitizers; hours"
	@echo "  make large           a layer with more than 2^31 gate values; 14 GB of memory"
	@echo "Other:"
	@echo "  make figures         the pictures of docs/, by the examples; 3 minutes"
	@echo "  make explorer        the explorer in Chromium, and its pictures; needs npm; a minute"
	@echo "  make docs            the pages of docs/ and the reference, as web pages in build/docs"

.PHONY: build test test_all test_long
build:
	$(PYTHON) setup.py build_ext --inplace

test:
	$(PYTHON) -m pytest -q -m "not slow"

test_all:
	$(PYTHON) -m pytest -q

test_long:
	$(PYTHON) -m pytest -q -m long

# stubtest imports the built package: it needs `make build` or an installed minigrad.
.PHONY: lint format
C_SOURCES = $(wildcard csrc/*.[ch] csrc/*.inc csrc/*/*.[ch] csrc/*/*.inc tests/csrc/*.[ch])
lint:
	ruff check .
	ruff format --check .
	cython-lint minigrad
	mypy
	mypy tests/typing/user_script.py
	$(PYTHON) -m mypy.stubtest minigrad --ignore-unused-allowlist --concise \
	    --mypy-config-file pyproject.toml --allowlist tests/typing/stubtest_allowlist.txt
	pyright
	clang-format --dry-run --Werror $(C_SOURCES)

format:
	ruff check --fix .
	ruff format .
	clang-format -i $(C_SOURCES)

.PHONY: ulp
ulp: build/ulp
	build/ulp

build/ulp: tests/csrc/ulp.c $(wildcard csrc/* csrc/*/*)
	mkdir -p build
	$(CC) $(C_FLAGS) tests/csrc/ulp.c $(KERNELS) -o $@ $(QUADMATH) -lpthread -lm

.PHONY: isa neon
isa:
	mkdir -p build
	$(CC) $(C_FLAGS) tests/csrc/isa_check.c $(KERNELS) -o build/isa_check -lpthread -lm
	build/isa_check

neon:
	mkdir -p build
	aarch64-linux-gnu-gcc -static $(C_FLAGS) tests/csrc/isa_check.c $(KERNELS) \
	    -o build/neon_check -lpthread -lm
	qemu-aarch64 build/neon_check

# The thread sanitizer lets no child of fork start threads, and qemu does not survive a fork beside
# threads: these two leave the forks out.
.PHONY: gemm gemm_neon gemm_tsan
gemm:
	mkdir -p build
	$(CC) $(C_FLAGS) tests/csrc/gemm_check.c $(KERNELS) -o build/gemm_check -lpthread -lm
	build/gemm_check

gemm_neon:
	mkdir -p build
	aarch64-linux-gnu-gcc -static -DGEMM_CHECK_WITHOUT_FORK $(C_FLAGS) \
	    tests/csrc/gemm_check.c $(KERNELS) \
	    -o build/gemm_neon_check -lpthread -lm
	qemu-aarch64 build/gemm_neon_check 50

gemm_tsan:
	mkdir -p build
	$(CC) -fsanitize=thread -DGEMM_CHECK_WITHOUT_FORK $(C_FLAGS) -O1 \
	    tests/csrc/gemm_check.c $(KERNELS) -o build/gemm_tsan -lpthread -lm
	build/gemm_tsan 40

# The recurrent kernels against their specification, under the thread sanitizer.
.PHONY: recurrent_tsan
recurrent_tsan:
	mkdir -p build
	$(CC) -fsanitize=thread $(C_FLAGS) -O1 tests/csrc/recurrent_check.c $(KERNELS) \
	    -o build/recurrent_tsan -lpthread -lm
	build/recurrent_tsan

# The three checks of the kernels, by gcc and by clang, under the sanitizers of addresses and
# undefined behaviour. Needs clang-14 and libclang-rt-14-dev.
SANITIZERS = -fsanitize=address,undefined -fno-sanitize-recover=undefined
SANITIZING_COMPILERS = gcc clang-14
.PHONY: sanitized
sanitized:
	set -e; for compiler in $(SANITIZING_COMPILERS); do \
	    folder=build/sanitized-$$compiler; \
	    mkdir -p $$folder; \
	    for file in $(KERNELS); do \
	        $$compiler $(SANITIZERS) $(C_FLAGS) -O1 -g -c $$file \
	            -o $$folder/$$(basename $$file .c).o; \
	    done; \
	    objects=$$(echo $(notdir $(KERNELS:.c=.o)) | sed "s|[^ ]*|$$folder/&|g"); \
	    for check in isa gemm recurrent; do \
	        $$compiler $(SANITIZERS) $(C_FLAGS) -O1 -g -Icsrc tests/csrc/$${check}_check.c $$objects \
	            -o $$folder/$$check -lpthread -lm; \
	        $$folder/$$check; \
	    done; \
	done
	@echo "sanitized: three checks by each of $(SANITIZING_COMPILERS), no report"

# The whole extension, built by gcc and by clang with the sanitizers of addresses and undefined
# behaviour: the suite and 100,000 calls of the public names with hostile arguments. Needs clang-14
# and libclang-rt-14-dev; hours on two cores.
.PHONY: asan
asan:
	$(PYTHON) tests/sanitized.py gcc clang-14

# The pictures of docs/, by the examples that its pages tell of; some three minutes on one core.
# Needs what `pip install '.[examples]'` installs.
.PHONY: figures
figures:
	mkdir -p docs/figures
	$(PYTHON) examples/scratch.py --plot docs/figures/scratch.png --graph docs/figures/graph.svg
	$(PYTHON) examples/vanishing.py --plot docs/figures/vanishing.png
	$(PYTHON) examples/forecast.py --plot docs/figures/forecast.svg
	$(PYTHON) examples/tagging.py --plot docs/figures/tagging.png
	mkdir -p build
	$(PYTHON) examples/music.py --data synthetic --out build/music
	cp build/music.png docs/figures/music.png
	$(PYTHON) examples/adding.py --plot docs/figures/adding.png
	$(PYTHON) examples/flipflop.py --plot docs/figures/flipflop.png
	$(PYTHON) docs/pictures.py
	$(PYTHON) docs/course/drawings.py

# The explorer's pages in Chromium: requests, errors, accessibility, keys, gradients, speed; and its
# pictures in docs/. Needs Node.js with npm, and Chromium.
.PHONY: explorer
explorer:
	$(PYTHON) tests/explorer/check.py --pictures docs/figures

# The pages and the reference of the public names, for a browser. A dead link is an error, and so
# is a public name that is missing. Needs what `pip install '.[docs]'` installs.
.PHONY: docs
docs:
	$(PYTHON) -m sphinx -q -E -W --keep-going -c docs . build/docs
	$(PYTHON) docs/check.py build/docs
	@echo "open build/docs/docs/index.html"

.PHONY: large
large:
	MINIGRAD_LARGE=1 $(PYTHON) -m pytest -q tests/nn/test_large.py
