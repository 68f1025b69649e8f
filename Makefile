# Every target works on a fresh machine: Python 3.11 or newer is all it asks for.
# PYTHON=… chooses the interpreter of a new .venv (make clean first), ARGS=… goes to the program.

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?=
ARGS   ?=

# Newest first; python3 last, it may be anything. pyenv's own shims may refuse, its versions do not.
CANDIDATES = python3.14 python3.13 python3.12 python3.11 python3 \
             /usr/bin/python3.14 /usr/bin/python3.13 /usr/bin/python3.12 /usr/bin/python3.11 \
             $$(ls -rd "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[1-4].*/bin/python3 2>/dev/null)
# A candidate has to run, be new enough, and be able to make an environment (Debian splits ensurepip off).
SUITABLE   = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
# Interpreters differ by a third in speed with how they were built, more than by version: the fastest is
# taken, and the newer one unless the other is a twentieth faster. Prints seconds of CPU: the least of many short
# runs, so that a busy machine decides nothing.
SPEED      = import time, timeit; print(min(timeit.repeat("for i in range(300): d[str(i)] = (i, b\"%d\" % i)", "d = {}", time.process_time, 25, 10)))
FASTEST    = { seconds = $$1; sub(/^[^ ]+ /, "") } \
             !($$0 in best) { order[++count] = $$0; best[$$0] = seconds } \
             seconds < best[$$0] { best[$$0] = seconds } \
             END { for (n = 1; n <= count; n++) if (n == 1 || best[order[n]] * 1.05 < best[found]) found = order[n]; \
                   print found }

# Tests wait for servers half of their time: one more than there are cores.
ABREAST    = import os; print((os.cpu_count() or 1) + 1)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve test check format bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/core.stamp ## start the gateway (sets up what it needs on the first run)
	@$(COMPILED)
	@exec $(BIN)/penstock serve $(ARGS)

test: $(VENV)/dev.stamp ## run the tests (with CI=true a skipped test fails)
	@$(COMPILED)
	@.ci/servers
	@$(BIN)/python -m pytest -n $$($(BIN)/python -c '$(ABREAST)') $(ARGS)

check: $(VENV)/dev.stamp ## format, lint, types, and the rules of the house
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_house.py

format: $(VENV)/dev.stamp ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp ## measure against nginx and print the budget table
	@$(COMPILED)
	@$(BIN)/python -m bench $(ARGS)

RESOLVE = env -u PIP_FIND_LINKS CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --upgrade \
          --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links

# Before 3.11.3 redis needs one package more: only there is it resolved.
lock: $(VENV)/dev.stamp ## resolve the dependencies anew (needs .venv on Python 3.11.2 or older, as Debian has it)
	@$(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:3] < (3, 11, 3))' || \
	  { echo "make lock: resolve on Python 3.11.2 (make clean, then make lock PYTHON=/usr/bin/python3.11)"; exit 1; }
	$(RESOLVE) --all-build-deps --extra postgres --output-file requirements.lock pyproject.toml
	$(RESOLVE) --all-build-deps --extra dev --output-file requirements-dev.lock pyproject.toml
	echo mypy | $(RESOLVE) --constraint requirements-dev.lock --output-file requirements-compile.lock -

clean: ## remove the environment and everything that was made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- set-up: a stamp is newer than everything it was made from, so that a second `make serve` starts at once.

INSTALL = env PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
EDITABLE = $(INSTALL) --no-deps --no-build-isolation --editable .

$(VENV)/core.stamp: requirements.lock pyproject.toml | $(VENV)/made.stamp
	@echo "installing what Penstock needs into $(VENV) …"
	@$(INSTALL) --require-hashes --requirement requirements.lock
	@$(EDITABLE)
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock pyproject.toml | $(VENV)/made.stamp
	@echo "installing what Penstock and its tests need into $(VENV) …"
	@$(INSTALL) --require-hashes --requirement requirements-dev.lock
	@$(EDITABLE)
	@touch $@ $(VENV)/core.stamp

# The hot path as machine code (gateway/compiled.py). What makes it stays out of the environment; where it can't
# be made, for want of a C compiler say, that is told and Penstock works without.
UP_TO_DATE = import sys, gateway; sys.exit(gateway.uncompiled not in ("", "PENSTOCK_COMPILED=no"))
COMPILED = $(BIN)/python -c '$(UP_TO_DATE)' || { \
  echo "compiling the hot path: a minute or two, and again only when it changes …"; \
  $(INSTALL) --require-hashes --upgrade --target $(VENV)/compiler --requirement requirements-compile.lock && \
  PYTHONPATH=$(VENV)/compiler $(BIN)/penstock compile; } || true

# Five passes over all, and each one's best: a neighbour that takes the core for a moment decides nothing.
$(VENV)/made.stamp:
	@if [ -z "$(PYTHON)" ] && $(BIN)/python -c '$(SUITABLE)' >/dev/null 2>&1; then touch $@; exit 0; fi; \
	found=$$(for pass in 1 2 3 4 5; do \
	  for candidate in $(if $(PYTHON),"$(PYTHON)",$(CANDIDATES)); do \
	    "$$candidate" -c '$(SUITABLE)' >/dev/null 2>&1 || continue; \
	    speed=$$("$$candidate" -c '$(SPEED)' 2>/dev/null) || continue; \
	    echo "$$speed $$candidate"; \
	  done; \
	done | awk '$(FASTEST)'); \
	if [ -z "$$found" ]; then \
	  echo "Penstock needs Python 3.11 or newer with the venv module (on Debian: apt install python3-venv);"; \
	  echo "none of these is one: $(if $(PYTHON),$(PYTHON),$(CANDIDATES)). PYTHON=… names another."; exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV) && touch $@
