# make run    everything needed, then Mien itself:   make run ARGS="--source webcam"
# make test   what the tests need besides, then the tests
# The environment is .venv; a second call installs nothing unless pyproject.toml has changed.

PYTHON ?= python3
ARGS ?=
# Test files side by side: most tests start processes and wait for them. JOBS=0 runs one after the other.
JOBS ?= 3
TORCH ?= torch==2.13.0

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Servers, screens and tools that the tests use. Installed by root on Debian and its children, else only named.
PACKAGES := xvfb x11-xserver-utils xdotool imagemagick python3-gi gir1.2-gst-rtsp-server-1.0 \
	gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly libgl1 libglib2.0-0 \
	chromium fonts-noto-cjk iproute2 systemd mosquitto mosquitto-clients postgresql

.PHONY: run test test-slow lint audit packages clean

run: .venv/installed
	@$(BIN)/python launch.py $(ARGS)

test: .venv/installed-test packages
	@rm -f .venv/pytest-status
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS); \
	  status=$$?; echo $$status > .venv/pytest-status; exit $$status

test-slow: .venv/installed-test packages
	$(BIN)/python -m pytest -m slow --timeout 1800 $(ARGS)

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Secrets in committed files; known faults of what is installed, where the service that knows them can be reached.
audit: .venv/installed-test
	$(BIN)/python .ci/secrets.py
	$(BIN)/python .ci/faults.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Mien needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

.venv/installed: pyproject.toml | .venv/bin/python
	$(PIP) install --quiet --editable .
	@touch $@

# face_recognition, the reference of the identity tests, asks for the package dlib, which compiles for minutes;
# dlib-bin is the same, compiled. It also needs pkg_resources, which setuptools 81 dropped.
.venv/installed-test: pyproject.toml | .venv/installed
	$(PIP) install --quiet "$(TORCH)" || echo "$(TORCH) is not to be had here: taking what pyproject.toml allows"
	$(PIP) install --quiet --editable '.[train,dev]'
	$(PIP) install --quiet --no-deps 'face_recognition>=1.3.0'
	$(PIP) install --quiet 'setuptools<81'
	@touch $@

packages:
	@missing=""; \
	command -v dpkg-query >/dev/null || exit 0; \
	for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
	done; \
	command -v npm >/dev/null || missing="$$missing nodejs npm"; \
	test -z "$$missing" && exit 0; \
	if [ "$$(id -u)" = 0 ]; then \
	  apt-get update --quiet --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes \
	    --no-install-recommends $$missing; \
	else \
	  echo "some tests need packages that are not installed: apt-get install$$missing"; \
	fi

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
