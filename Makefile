# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

BIN := .venv/bin
# Nodes start by the hundred in the tests: without compiled files each compiles all of the code again.
export PYTHONDONTWRITEBYTECODE :=
# A stamp's name holds the hash of what it was made from: when that changes, the step is done again.
RUN_STAMP := .make/run-$(shell cat pyproject.toml deploy/apt/demo.txt | sha256sum | cut -c1-16)
TEST_STAMP := .make/test-$(shell cat pyproject.toml deploy/apt/*.txt deploy/npm/* | sha256sum | cut -c1-16)
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do command -v $$p >/dev/null && \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
CONFIG ?= config/wetread.toml

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: demo
demo: $(RUN_STAMP) ## set up, then send real CT through a node to a stand-in PACS and show what came of it
	$(BIN)/wetread demo --output demo-output

.PHONY: run
run: $(RUN_STAMP) ## run the node in the foreground (CONFIG=config/wetread.toml)
	$(BIN)/wetread run --config $(CONFIG)

.PHONY: test
test: $(TEST_STAMP) lint types contracts unit ## install what the tests need, then every check and test

.PHONY: check
check: test ## the same as test

.PHONY: lint
lint: $(TEST_STAMP) ## ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: format
format: $(TEST_STAMP) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(TEST_STAMP) ## mypy --strict, tests included
	$(BIN)/mypy

.PHONY: contracts
contracts: $(TEST_STAMP) ## the layering contracts
	$(BIN)/lint-imports

.PHONY: unit
unit: $(TEST_STAMP) ## all tests but those that need a GPU or take minutes, whose numbers are told; the wheel smoke test is one
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not gpu and not long"

.PHONY: published
published: $(TEST_STAMP) ## the largest published nets on real heads, through a node and beside a plain pipeline: minutes each
	$(BIN)/pytest -q -m long

.PHONY: fuzz
fuzz: $(TEST_STAMP) ## 10,000 conversations no peer would have, and as many hostile headers (FUZZ_CASES=10000)
	FUZZ_CASES=$${FUZZ_CASES:-10000} $(BIN)/pytest -q tests/end_to_end/test_protocol_fuzz.py tests/node/test_header_corpus.py

.PHONY: geometries
geometries: $(TEST_STAMP) ## 1,000 random geometries for each kind of Segmentation, from files and back (GEOMETRIES=1000)
	GEOMETRIES=$${GEOMETRIES:-1000} $(BIN)/pytest -q tests/node/results/test_segmentation_geometry.py

.PHONY: bench-delivery
bench-delivery: $(TEST_STAMP) ## time what sending an object costs, beside pynetdicom and dcmtk's storescu
	$(BIN)/python deploy/bench/delivery.py

.PHONY: bench-turnaround
bench-turnaround: $(TEST_STAMP) ## seconds from the last C-STORE response to the SEG at the PACS, by stage
	$(BIN)/python deploy/bench/turnaround.py $(BENCH)

.PHONY: bench-ingest
bench-ingest: $(TEST_STAMP) ## C-STORE ingest beside dcmtk, Orthanc and pynetdicom (BENCH="--quick --floor")
	$(BIN)/python deploy/bench/ingest.py $(BENCH)

.PHONY: bench-reading
bench-reading: $(TEST_STAMP) ## time what reading a CT series back as a volume costs, beside pydicom and SimpleITK
	$(BIN)/python deploy/bench/reading.py $(BENCH)

.PHONY: bench-results
bench-results: $(TEST_STAMP) ## time and memory that a Segmentation takes, beside highdicom
	$(BIN)/python deploy/bench/results.py $(BENCH)

.PHONY: bench-engines
bench-engines: $(TEST_STAMP) ## time what a window and a study cost on each inference runtime that is here
	$(BIN)/python deploy/bench/engines.py $(BENCH)

.PHONY: faults
faults: $(TEST_STAMP) ## 200 kill -9, and faults of disk and database, under load (FAULTS="--kills 20 --seed 1")
	$(BIN)/python -m tests.end_to_end.faults $(FAULTS)

.PHONY: soak
soak: $(TEST_STAMP) ## twice a large hospital's peak hour, and whether anything grows (SOAK="--minutes 5")
	$(BIN)/python -m tests.end_to_end.soak $(SOAK)

.PHONY: clean
clean: ## remove the virtual environment and what the tools left
	rm -rf .venv .make .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist demo-output

.venv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed (apt-get install python3)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || deploy/apt/install.sh deploy/apt/venv.txt
	$(PYTHON) -m venv .venv

$(RUN_STAMP): | .venv
	deploy/apt/install.sh deploy/apt/demo.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@mkdir -p .make && touch $@

$(TEST_STAMP): | .venv
	deploy/apt/install.sh deploy/apt/demo.txt deploy/apt/test.txt
	deploy/npm/unpack.sh deploy/npm/ohif.txt .make/ohif
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@mkdir -p .make && touch $@ $(RUN_STAMP)
