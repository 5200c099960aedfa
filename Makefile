# One command each: make call, make test. `make` alone prints what there is.
#
#   PYTHON=/path/to/python3.12   another interpreter (3.11 or 3.12)
#   TORCH_INDEX=                 take torch from pip's ordinary index (on Linux: with CUDA, gigabytes)
#   ARGS="--config gpu"          goes to `geli call`, `geli bench call` or pytest

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ARGS ?=

# Shared libraries that the wheels load but do not bring (mediapipe, OpenCV, sounddevice).
RUN_PACKAGES := libgl1 libegl1 libgles2 libglib2.0-0 libportaudio2
RUN_LIBRARIES := libGL.so.1 libEGL.so.1 libGLESv2.so.2 libglib-2.0.so.0 libportaudio.so.2
# What the end-to-end tests drive (a browser, a terminal), and a library of what drives it (Playwright's Node.js).
# … and a load balancer, a relay and network namespaces, for the tests of several workers.
TEST_PACKAGES := chromium libatomic1 tmux postgresql nginx coturn iproute2
TEST_PROGRAMS := tmux nginx turnserver ip

# The first interpreter on the path that the program runs on.
IS_RIGHT := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	if command -v $$p >/dev/null && $$p -c "$(IS_RIGHT)" 2>/dev/null; then echo $$p; break; fi; done)

.PHONY: help setup setup-test call talk test lint bench system system-test python

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: $(VENV)/.setup ## the program in .venv

call: setup ## fetch the weights once, then serve http://127.0.0.1:7860/
	$(BIN)/geli models pull
	$(BIN)/geli call $(ARGS)

talk: setup ## the same call with this machine's microphone, speaker and camera
	$(BIN)/geli models pull
	$(BIN)/geli talk $(ARGS)

test: lint system-test ## everything CI runs: lint, types, import rules, all tests
	$(BIN)/geli models pull
	$(BIN)/pytest $(ARGS)

lint: setup-test ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup-test ## voice-to-voice of this machine beside a sequential pipeline
	$(BIN)/geli models pull
	$(BIN)/geli bench call $(ARGS)

setup-test: $(VENV)/.setup-test

$(VENV)/.setup: pyproject.toml constraints.txt | system python
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c "$(IS_RIGHT)" || { echo "$(VENV) has another Python: delete $(VENV), then again" >&2; exit 2; }
	@if test -n "$(TORCH_INDEX)" && ! $(BIN)/python -c "import torch" 2>/dev/null; then \
		$(BIN)/pip install --no-deps --retries 0 --timeout 20 -c constraints.txt \
			--index-url "$(TORCH_INDEX)" torch \
		|| echo "no torch at $(TORCH_INDEX): taking it from the ordinary index"; \
	fi
	$(BIN)/pip install -c constraints.txt -e .
	@touch $@

$(VENV)/.setup-test: $(VENV)/.setup
	$(BIN)/pip install -c constraints.txt -e '.[test]'
	@touch $@

python:
	@test -n "$(PYTHON)" || { echo "geli needs Python 3.11 or 3.12 (none on the path): make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c "$(IS_RIGHT)" 2>/dev/null || { echo "geli needs Python 3.11 or 3.12; $(PYTHON) is not: make PYTHON=/path/to/python3.11" >&2; exit 2; }

system: python
	@missing=; known="$$(PATH="$$PATH:/sbin:/usr/sbin"; ldconfig -p 2>/dev/null || true)"; \
	for library in $(RUN_LIBRARIES); do [[ "$$known" == *"$$library"* ]] || missing="$(RUN_PACKAGES)"; done; \
	$(PYTHON) -c "import ensurepip" 2>/dev/null || missing="$$missing python3-venv"; \
	$(call install,$$missing)

system-test:
	@missing=; known="$$(PATH="$$PATH:/sbin:/usr/sbin"; ldconfig -p 2>/dev/null || true)"; \
	command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing="$(TEST_PACKAGES)"; \
	[[ "$$known" == *libatomic.so.1* ]] || missing="$(TEST_PACKAGES)"; \
	for program in $(TEST_PROGRAMS); do PATH="$$PATH:/sbin:/usr/sbin" command -v $$program >/dev/null \
		|| missing="$(TEST_PACKAGES)"; done; \
	command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$(TEST_PACKAGES)"; \
	$(call install,$$missing)

# Root installs; anybody else is told the line.
define install
if test -n "$(1)"; then \
	if ! command -v apt-get >/dev/null; then \
		if test "$$(uname)" = Linux; then echo "install what these Debian packages hold: $(1)" >&2; exit 2; fi; \
	elif test "$$(id -u)" != 0; then \
		echo "first, as root: apt-get install -y --no-install-recommends $(1)" >&2; exit 2; \
	else \
		echo "installing $(1)"; \
		apt-get update -q; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(1); \
	fi; \
fi
endef
