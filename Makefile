# make demo   a real Kubernetes and a real Slurm on this machine, and a pod running as a job
# make test   every test, the end-to-end ones on those real parts included
# make test-versions  what Slurm 22.05, 26.05 and SingularityCE do differently
# make test-faults    the faults and outages at full length: 500 submissions, a minute each
# make check  lint, types, architecture and unit tests but the slow ones, in about a minute
# make bench  what the bridge costs, beside plain sbatch
# make down   stops everything that was started here
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Workers of the tests of the runner, and of all others: more than CPUs, for much of a test is waiting.
AT_ONCE := $(shell expr 2 \* `nproc 2>/dev/null || echo 2`)
MORE_AT_ONCE := $(shell expr 3 \* `nproc 2>/dev/null || echo 2`)

# Bytecode is kept, whatever the shell says: every worker of the tests and every agent would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

FULL_FAULTS := SLURMLET_FAULTY_SUBMISSIONS=500 SLURMLET_AWAY_SECONDS=60

.PHONY: demo test test-versions test-faults check types lint unit unit-runner unit-others bench down venv clean
.DEFAULT_GOAL := check

demo: $(STAMP)
	@$(BIN)/python -m slurmlet demo

down: $(STAMP)
	@$(BIN)/python -m slurmlet demo --stop
	@$(BIN)/python -m testbed down

test: check
	@$(BIN)/python -m testbed up
	@$(BIN)/python -m tests.e2e

test-versions: $(STAMP)
	@$(BIN)/python -m tests.e2e.versions

test-faults: $(STAMP)
	@$(BIN)/python -m testbed up
	@$(FULL_FAULTS) $(BIN)/python -m pytest -s -m e2e tests/e2e/test_faults.py tests/e2e/test_daemons.py

check: $(STAMP)
	@$(MAKE) --no-print-directory -j4 types lint unit

types: $(STAMP)
	@$(BIN)/mypy

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/vermin --no-tips -q -t=3.6- --violations slurm_plugin/runner slurm_plugin/hostagent slurm_plugin/jobdir.py slurm_plugin/clients/pyslurm/child.py

# A library that one slow test needs takes each worker a second.
UNIT := -q --dist worksteal -m "not e2e and not slow" -p no:schemathesis

# Apart, for most tests of the runner wait, and every worker has to import and list all that it might be given. What one
# of the two says is shown when it has ended, not in the middle of the other's words.
unit: unit-runner unit-others

unit-runner: $(STAMP)
	@mkdir -p build/tests
	@$(BIN)/python -m pytest $(UNIT) -n $(AT_ONCE) --junitxml=build/tests/unit-runner.xml tests/slurm_plugin/runner >build/tests/unit-runner.log 2>&1; \
	code=$$?; cat build/tests/unit-runner.log; exit $$code

unit-others: $(STAMP)
	@$(BIN)/python -m pytest $(UNIT) -n $(MORE_AT_ONCE) --junitxml=build/tests/unit-others.xml --ignore=tests/slurm_plugin/runner --ignore=tests/e2e --ignore=tests/sidecar/test_openapi.py tests

bench: $(STAMP)
	@$(BIN)/python -m testbed up
	@$(BIN)/python -m benchmarks

venv: $(STAMP)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; Python 3.11 or later is needed (make PYTHON=/path/to/python3)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or later is needed (make PYTHON=/path/to/python3)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Installing python3-venv …"; apt-get -qq update && apt-get -qq install -y python3-venv; }
	@echo "Installing the Python packages into $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar=off --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
