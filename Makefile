# make demo     try the exporter, no account needed
# make unit     run the quick tests while you work
# make test     run everything that CI checks
# Works with make 3.81 (macOS) and newer. All files are created in .venv; "make clean" removes them.

PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
VENV ?= .venv
ARGS ?=
SOAK_SECONDS ?= 600
SOAK_SEED ?= 1000000
FUZZ_SECONDS ?= 60
FUZZ_SEED ?= 1

BIN := $(VENV)/bin
# The number of processes is chosen in tests/conftest.py; ARGS="-n 0" runs the tests in this one.
PARALLEL := -n auto --dist worksteal
DOCKER ?= docker
IMAGE ?=
SBOM = $(BIN)/python release/sbom.py --time "$$(git log -1 --format=%ct)"
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Directories are listed, too: deleting a module changes only its directory.
SOURCES := pyproject.toml README.md LICENSE $(shell find exporter modelarts_exporter -name __pycache__ -prune -o -print)

.DEFAULT_GOAL := help
.PHONY: help demo unit test soak fuzz install lint types docs docs-check format lock bench screenshot release sbom image image-test clean prometheus

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# Only the exporter must receive Ctrl-C. Otherwise make ends as "interrupted", even if the exporter
# stopped cleanly. So in the foreground of a terminal ("+" in ps) the exporter gets its own process group.
demo: install ## run the exporter with a simulated service until Ctrl-C; options: ARGS="--help"
	@case "$$(ps -o stat= -p $$$$ 2>/dev/null)" in \
	  *+*) set -m; $(BIN)/modelarts-exporter demo $(ARGS) ;; \
	  *) exec $(BIN)/modelarts-exporter demo $(ARGS) ;; \
	esac

# The checkout is not on the import path (PYTHONSAFEPATH, no rootdir), so the tests use what users
# get: the installed wheel.
test: $(VENV)/.dev $(VENV)/.package prometheus lint types docs-check ## run lint, types, docs and all tests; options: ARGS="-k paging"
	PYTHONSAFEPATH=1 TEST_INSTALLED=1 $(BIN)/pytest $(PARALLEL) $(ARGS)

# These need no installed package: "python -m" puts the checkout on the import path.
unit: $(VENV)/.dev ## run the quick tests of the checkout: no network, no other program; options: ARGS="-k paging"
	$(BIN)/python -m pytest $(PARALLEL) -m "not integration and not slow" $(ARGS)

soak: $(VENV)/.dev $(VENV)/.package ## compare counters with random simulated regions; options: SOAK_SECONDS=600 SOAK_SEED=1000000
	$(BIN)/python tests/model_based/soak.py $(SOAK_SECONDS) $(SOAK_SEED)

fuzz: $(VENV)/.dev $(VENV)/.package ## throw mutated answers and requests at the exporter; options: FUZZ_SECONDS=60 FUZZ_SEED=1
	$(BIN)/python tests/fuzz/run.py $(FUZZ_SECONDS) $(FUZZ_SEED)

install: $(VENV)/.package ## install the exporter and its locked dependencies in .venv

lint: $(VENV)/.dev ## run the linter and check the format (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## check types (mypy, strict)
	$(BIN)/mypy

docs: $(VENV)/.dev $(VENV)/.package ## regenerate the generated pages of docs/ and files of deploy/
	$(BIN)/python docs/generate.py
	$(BIN)/python deploy/generate.py

docs-check: $(VENV)/.dev $(VENV)/.package
	$(BIN)/python docs/generate.py --check
	$(BIN)/python deploy/generate.py --check

format: $(VENV)/.dev ## format and fix the code (ruff)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev $(VENV)/.package ## run the benchmarks of benchmarks/README.md, several minutes
	@missed=; for script in benchmarks/bench_*.py; do \
	  echo "== $$script"; $(BIN)/python $$script || missed="$$missed $$script"; \
	done; test -z "$$missed" || { echo "missed a target:$$missed" >&2; exit 1; }

screenshot: $(VENV)/.package ## retake the pictures in docs/images (needs chromium)
	$(BIN)/python docs/screenshot.py

# uv.lock contains the address of the registry, so it stays in the temporary directory.
lock: ## update the lock files to the newest versions that pyproject.toml allows (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	mkdir "$$dir/exporter"; cp pyproject.toml README.md LICENSE "$$dir"; \
	cp exporter/__init__.py "$$dir/exporter"; \
	uv lock --quiet --project "$$dir"; \
	export="uv export --quiet --frozen --project $$dir --format requirements.txt --no-header --no-emit-project"; \
	$$export --no-default-groups --output-file "$$dir/runtime" >/dev/null; \
	$$export --only-group build --output-file "$$dir/build" >/dev/null; \
	$$export --group dev --output-file "$$dir/dev" >/dev/null; \
	cp "$$dir/runtime" requirements.lock; \
	cp "$$dir/build" requirements-build.lock; \
	cp "$$dir/dev" requirements-dev.lock

release: $(VENV)/.dev ## build wheel, sdist, chart and checksums of the last commit in dist/
	rm -rf dist
	$(BIN)/python release/build.py dist

# The image is described from the inside: sbom.py gets the list of what is installed there.
sbom: $(VENV)/.dev $(VENV)/.package ## list the packages of the wheel, and of an image, in dist/; options: IMAGE=modelarts-exporter
	@mkdir -p dist
	$(BIN)/python release/inventory.py | $(SBOM) > dist/wheel.cdx.json
ifneq ($(IMAGE),)
	$(DOCKER) run --rm --interactive --entrypoint python3 $(IMAGE) - < release/inventory.py \
	  | $(SBOM) --image $(IMAGE) > dist/image.cdx.json
endif

image: ## build the container image modelarts-exporter (needs docker)
	$(DOCKER) build --tag modelarts-exporter --build-arg REVISION="$$(git rev-parse HEAD)" \
	  --build-arg CREATED="$$(git log -1 --format=%cI)" .

image-test: ## build the image without a registry and run the demo in it, some minutes (needs root on Linux)
	deploy/image_test.sh

clean: ## remove all created files
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@for python in $(PYTHON); do \
	  if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Creating $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV) && touch $@; exit; \
	  fi; \
	done; \
	echo "No Python 3.11 or newer with the venv module found; tried: $(PYTHON)." >&2; \
	echo "Install one (Debian, Ubuntu: apt-get install python3-venv) or set its path: make PYTHON=/path/to/python3" >&2; \
	exit 1

$(VENV)/.runtime: $(VENV)/.made requirements.lock requirements-build.lock
	@echo "Installing locked dependencies"
	@$(PIP) install --require-hashes -r requirements.lock -r requirements-build.lock
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@echo "Installing locked development tools"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.package: $(VENV)/.runtime $(SOURCES)
	@echo "Building and installing modelarts-exporter"
	@$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# Debian's packages start servers on ports 9090 and 9093: these are stopped and disabled at once.
prometheus:
	@if command -v prometheus >/dev/null && command -v promtool >/dev/null && \
	    command -v prometheus-alertmanager >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing prometheus and prometheus-alertmanager"; \
	  export DEBIAN_FRONTEND=noninteractive; \
	  apt="apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120"; \
	  $$apt update && $$apt install --yes --no-install-recommends prometheus prometheus-alertmanager >/dev/null && { \
	    command -v promtool >/dev/null || $$apt install --yes promtool >/dev/null; } && { \
	    for server in prometheus prometheus-alertmanager; do \
	      invoke-rc.d --quiet $$server stop || true; update-rc.d $$server disable || true; \
	    done; exit 0; }; \
	fi; \
	echo "Prometheus is missing. The tests with a real Prometheus need it (prometheus and promtool on the PATH;" >&2; \
	echo "Debian, Ubuntu: apt-get install prometheus; macOS: brew install prometheus)." >&2; \
	test -z "$$REQUIRE_PROMETHEUS"
