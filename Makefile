# Build, demo and tests of the SATUSEHAT DICOM Router. `make help` lists the targets.
# Needs only python3 >= 3.11 with venv, and make; nothing is installed outside .venv.
SHELL = /bin/sh
VENV = .venv
PY = $(VENV)/bin/python
PIP = $(PY) -m pip --disable-pip-version-check --quiet install --require-hashes --only-binary :all:
UV = $(PY) -m uv pip compile pyproject.toml --universal --python-version 3.11 --quiet \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header
# A temporary folder of its own: two test runs at once change the rights of the one they would share.
run_soak = $(PY) -m pytest -q -s --all-long tests/system/test_soak.py --junitxml build/soak.xml
run_pytest = t=$$(mktemp -d) && PYTEST_DEBUG_TEMPROOT=$$t $(PY) -m pytest $(1) && rm -rf $$t
# Most tests wait for programs and sockets half of their time: more of them at once than there are cores.
GATE = -q -n 4 --dist worksteal --long-budget 15
APT_LINE = apt-get install -y python3 python3-venv make

# Most tests start programs of ours: what these import is compiled once, whatever the caller's shell prefers.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help demo test proof soak lint bench template picture translations screenshots requirements peers clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-20s %s\n' "$$name" "$$text"; done

# ---------------------------------------------------------------- the environment

$(VENV)/created:
	@set -e; found=""; \
	for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Missing: Python 3.11 or newer (python3 here: $$(python3 --version 2>&1 || true))."; \
		echo "On Debian 12, Ubuntu 24.04 or newer:  sudo $(APT_LINE)"; \
		echo "Another interpreter:                  make demo PYTHON=/path/to/python3.12"; exit 1; \
	fi; \
	if ! "$$found" -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "Missing: the venv module of $$("$$found" --version)."; \
		echo "On Debian and Ubuntu:  sudo $(APT_LINE)"; exit 1; \
	fi; \
	if [ -e $(VENV) ] && [ ! -e $(VENV)/made-by-make ]; then \
		echo "$(VENV) exists and was not made by this Makefile; name another folder with VENV= or remove it yourself."; exit 1; \
	fi; \
	rm -rf $(VENV); mkdir -p $(VENV); touch $(VENV)/made-by-make; "$$found" -m venv $(VENV); touch $@

$(VENV)/demo.stamp: requirements/demo.txt $(VENV)/created
	@echo "Installing the router and its sample images into $(VENV) (a minute or two) ..."
	@$(PIP) -r requirements/demo.txt
	@touch $@

$(VENV)/test.stamp: requirements/test.txt $(VENV)/created
	@echo "Installing what the tests need into $(VENV) (a minute or two) ..."
	@$(PIP) --no-binary fusepy -r requirements/test.txt
	@touch $@

# Debian packages of the test peers, only if we may install them; otherwise their tests are skipped and listed.
peers:
	@missing=""; \
	command -v storescu >/dev/null || missing="$$missing dcmtk"; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	command -v gdcmconv >/dev/null || missing="$$missing libgdcm-tools"; \
	command -v chromium >/dev/null || missing="$$missing chromium"; \
	{ command -v Orthanc || test -x /usr/sbin/Orthanc; } >/dev/null || missing="$$missing orthanc"; \
	ls /usr/share/orthanc/plugins/libOrthancDicomWeb.so* >/dev/null 2>&1 || missing="$$missing orthanc-dicomweb"; \
	test -x /usr/sbin/sshd || missing="$$missing openssh-server"; \
	ldconfig -p 2>/dev/null | grep -q 'libfuse\.so\.2' || missing="$$missing libfuse2"; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing test peers:$$missing"; \
		(apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing) \
			>/dev/null || echo "Could not install:$$missing"; \
	elif [ -n "$$missing" ]; then \
		echo "Not installed (tests that need them are skipped):$$missing"; \
	fi

# ---------------------------------------------------------------- what people use

demo: $(VENV)/demo.stamp ## see it work: sandbox, router, sample images (ONCE=1: check and exit)
	@$(PY) -m sandbox.demo $(if $(ONCE),--once)

test: $(VENV)/test.stamp peers ## the gate: lint, types, tests, one demo (5 minutes; 8 at most)
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m sandbox.demo --once
	@$(call run_pytest,$(GATE) tests --ignore tests/system)
	@$(call run_pytest,$(GATE) tests/system)

proof: $(VENV)/test.stamp peers ## everything long; writes the dated tables in docs/
	rm -rf build/proof && mkdir -p build/proof
	-@$(call run_pytest,-n 2 --all-long tests --ignore tests/system --junitxml build/proof/parts.xml)
	-@$(call run_pytest,-n 2 --all-long tests/system --junitxml build/proof/system.xml)
	$(PY) -m bench.record --proof build/proof/parts.xml build/proof/system.xml
	$(MAKE) bench

soak: $(VENV)/test.stamp ## 20 minutes of load, kills, faults, short tokens; kept in docs/ (SOAK_MINUTES=N)
	@mkdir -p build && SOAK_MINUTES=$${SOAK_MINUTES:-20} $(call run_soak)
	$(PY) -m bench.record --soak build/soak.xml

lint: $(VENV)/test.stamp ## style and types
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: $(VENV)/test.stamp ## measure; writes docs/performance.md (BENCH_ROUNDS=1: short, 7: steady)
	$(PY) -m bench.record

template: $(VENV)/demo.stamp ## write router.conf.template from the settings
	$(PY) main.py template > router.conf.template.new
	mv router.conf.template.new router.conf.template

picture: $(VENV)/demo.stamp ## draw assets/architecture.svg from its text
	$(PY) assets/architecture.py

translations: $(VENV)/test.stamp ## collect the texts of the pages, compile their translations
	$(PY) -m assets.translations

screenshots: $(VENV)/test.stamp ## take the pictures of the pages in assets/
	$(PY) -m assets.screenshots

requirements: $(VENV)/created ## pin every dependency with hashes from pyproject.toml
	@$(PY) -m pip --disable-pip-version-check --quiet install uv
	$(UV) --all-extras -o requirements/test.txt $(UPGRADE)
	$(UV) --constraint requirements/test.txt -o requirements/router.txt
	$(UV) --constraint requirements/test.txt --extra postgres -o requirements/postgres.txt
	$(UV) --constraint requirements/test.txt --extra demo -o requirements/demo.txt

clean: ## remove .venv, .demo and caches (never data/ or router.conf)
	rm -rf $(VENV) .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -not -path './data/*' -prune -exec rm -rf {} +
