# Everything that a checkout can do. Paths are relative: a checkout may lie anywhere, blanks in its path included.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

RUN := .venv/bin/python -m
UV := .bootstrap/bin/uv
VENV := .venv/installed

export PYTHON

.PHONY: help
help:
	@echo 'make demo     real files land, each starts its pipeline exactly once; run again: nothing is new'
	@echo 'make test     every test that needs no Java, on a real Postgres that comes along'
	@echo '              make test ARGS="-k webhook -x"      some of them'
	@echo 'make test-kafka   the tests on a real Kafka broker; needs Java 17 and Maven'
	@echo 'make check    format, lint, types, import contract, links in the docs, lock file'
	@echo 'make kill     60 s of kill -9 while data arrives, judged by an oracle (exit 1: it found something)'
	@echo '              make kill SEED=7 SECONDS=20         replay a run, or a shorter one'
	@echo '              make kill MUTANT=name               with a planted bug: must be caught; MUTANT=list names them'
	@echo 'make million  a million Kafka records through nodes and brokers that are killed; minutes; SEED=7 RECORDS=50000'
	@echo 'make planted  bugs planted at the sources, each of which its test must notice; ROW="f1 k5": some of them'
	@echo 'make bench    every figure beside its floor; wants the machine for itself'
	@echo '              make bench ARGS="--only ingest"     some of them'
	@echo 'make lock     make requirements.lock anew, after a change of dependencies in pyproject.toml'
	@echo 'make clean    remove what make made, the demo with its data included'
	@echo
	@echo 'The first of them installs what all need into .venv. PYTHON=/path/to/python3 chooses the Python.'

# Installed anew when the lock changed, and when the checkout was moved: an editable install knows its path.
ifneq ($(shell cat .venv/installed 2>/dev/null),$(shell pwd -P))
.PHONY: $(VENV)
endif
$(VENV): requirements.lock pyproject.toml tools/install.sh tools/requirements-uv.txt
	@sh tools/install.sh

.PHONY: demo
demo: $(VENV)
	@$(RUN) demo.run $(ARGS)

.PHONY: test
test: $(VENV)
	@$(RUN) pytest -q $(ARGS)

# The jars come first: without Java or Maven this says so in one line.
.PHONY: test-kafka
test-kafka: $(VENV)
	@$(RUN) tests.kafka.broker > /dev/null
	@$(RUN) pytest -q tests/kafka $(ARGS)

# One target each, so that `make -k check` says everything at once.
CHECKS := check-format check-lint check-types check-imports check-links check-lock
.PHONY: check $(CHECKS)
check: $(CHECKS)
check-format: $(VENV)
	$(RUN) ruff format --check .
check-lint: $(VENV)
	$(RUN) ruff check .
check-types: $(VENV)
	$(RUN) pyright
check-imports: $(VENV)
	.venv/bin/lint-imports
check-links: $(VENV)
	$(RUN) tools.links
check-lock: $(VENV)
	$(RUN) tools.lock

.PHONY: bench
bench: $(VENV)
	@$(RUN) bench $(ARGS)

.PHONY: kill
kill: $(VENV)
ifeq ($(MUTANT),list)
	@$(RUN) tests.chaos --list-mutants
else
	@$(RUN) tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(MUTANT),--mutant $(MUTANT)) $(ARGS)
endif

.PHONY: million
million: $(VENV)
	@$(RUN) tests.kafka.broker > /dev/null
	@$(RUN) tests.kafka.million $(if $(SEED),--seed $(SEED)) $(if $(RECORDS),--records $(RECORDS)) $(ARGS)

.PHONY: planted planted-page
planted: $(VENV)
	@$(RUN) tests.planted $(ROW) $(ARGS)
planted-page: $(VENV)
	@$(RUN) tests.planted --write-page

# The image gets only what runs in it, in the versions of the whole lock.
COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url pyproject.toml
.PHONY: lock
lock:
	@sh tools/install.sh uv
	$(COMPILE) $(if $(UPGRADE),--upgrade) --all-extras --group dev --output-file requirements.lock
	$(COMPILE) --extra kafka --extra postgres --extra regex --group build --constraint requirements.lock --output-file requirements-image.lock

.PHONY: clean
clean:
	rm -rf .venv .bootstrap .demo .kafka .pytest_cache .ruff_cache .hypothesis .import_linter_cache
