# Every target makes the environment that it needs; `make` alone names them.

PYTHON ?= python3
PORT ?= tools/device/port
export MICROPYTHON

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
RUNNER = $(PY) -m tools.mpytest --port "$(PORT)"

.DEFAULT_GOAL := help
.PHONY: help venv libraries mosquitto nginx postgres chromium console lint test test-device bench size demo faults docs clean

define HELP
make venv         the environment alone: .venv, MicroPython, its libraries
make mosquitto    the broker that a part of the tests talks to: installs it, as root with apt-get
make nginx        the server of the benchmarks and their tests, likewise
make postgres     the data base of a part of the tests, likewise
make chromium     the browser that tests the console, likewise
make console      the platform with two simulated devices to play with, and its console
make lint         style, format, spelling
make test         lint, the tests that MicroPython runs, the tests that Python runs
make test-device  unix_port_tests/ alone, also over another model of the hardware
make bench        what an upgrade costs on the device, about 3 minutes: build/bench.json
make size         the device package as .mpy, by file, against its limit
make demo         three simulated devices are upgraded by the local platform, about a minute
make faults       the whole fault campaign, about an hour: build/faults.json, docs/faults.md
make docs         the pages that are made from the code
make clean        removes what the others made

Variables: make test-device PORT=folder MICROPYTHON=path
  PORT            folder with the modules esp32, machine and network
                  (default: $(PORT))
  MICROPYTHON     the interpreter, a path or a name, also of the simulated devices
                  (default: the one in .venv)
  PYTHON          the Python, 3.10 or newer, that makes .venv (default: python3)

Environment of one simulated device, as the modules in PORT read it:
  OTA_SIM_FLASH   path of its flash file
  OTA_SIM_IDF     generation of its boot loader, 5.5 (the default) or 6.1
endef
export HELP

help:
	@echo "$$HELP"

$(READY): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed: make PYTHON=path" if sys.version_info < (3, 10) else 0)'
	@echo "$(VENV): making it, about a minute"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

# Fetches nothing when what it would fetch is there and has the right digests.
libraries: $(READY)
	@$(PY) -m tools.fetch

venv: libraries

# Servers are not on every PATH: some keep them for root. Where one cannot be installed, what needs
# it says so.
define SERVER
@PATH="$$PATH:/usr/sbin:/usr/local/sbin:$$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')"; \
if ! command -v $(1) >/dev/null; then \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "$(1): installing it"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $(2) >/dev/null; \
	fi; \
	command -v $(1) >/dev/null || echo "$(1) is missing, install it: apt-get install $(2)"; \
fi
endef

mosquitto:
	$(call SERVER,mosquitto,mosquitto)

nginx:
	$(call SERVER,nginx,nginx-light)

postgres:
	$(call SERVER,postgres,postgresql)

chromium:
	$(call SERVER,chromium,chromium)

lint: $(READY)
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --check --quiet
	@$(PY) -m codespell_lib

# pytest comes last, so that its closing line is the last one. Three at a time, for most of them
# wait more than they work.
test: lint libraries mosquitto nginx postgres chromium
	@$(RUNNER)
	@$(PY) -m tools faults --sample
	@$(PY) -m pytest -n 3

faults: libraries mosquitto
	@$(PY) -m tools faults --write

test-device: libraries
	@$(RUNNER)

# PEER=path: a module with from_firmware_file(url) to compare with.
bench: libraries mosquitto nginx postgres
	@$(PY) -m tools bench $(if $(PEER),--peer "$(PEER)")

size: libraries
	@$(PY) -m tools.size

demo: libraries
	@$(PY) -m tools demo

console: libraries
	@$(PY) -m tools console

docs: libraries
	@$(PY) -m tools.codes docs/codes.md

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
