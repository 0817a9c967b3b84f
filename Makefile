# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: demo test bench check up down setup lock generate clean storm orders verify-mongo sbom audit

demo: setup        ## play one cohort from nomination to graduation on the embedded stack
	$(BIN)/python -m demo play scenarios/pkp-2022-iii.yaml

test: setup        ## every test; starts the servers that it needs
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder

storm: setup       ## workers killed, neighbours away, slow, full; a cohort among ending processes: KILLS or MINUTES, AWAY (s)
	$(BIN)/python -m storm $(if $(MINUTES),--minutes $(MINUTES),--kills $(or $(KILLS),1000)) --away $(or $(AWAY),20)
	$(BIN)/python -m storm --faults --away $(or $(AWAY),20)
	$(BIN)/python -m storm --cohort

verify-mongo: setup  ## the kernel's tests and kills against a MongoDB of yours, a replica set: URI=mongodb://…
	TEST_MONGO_URI="$(URI)" $(BIN)/python -m pytest -q tests/shared
	$(BIN)/python -m storm --mongo-uri "$(URI)" --kills 40 --away 0

bench: setup      ## measure beside the floors, side by side: ONLY="relay inbox" for some; else docs/performance.md is written
	$(BIN)/python -m benchmarks $(or $(ONLY),--write docs/performance.md)

ORDERS := $(wildcard tests/*/test_orders.py) tests/shared tests/enrollment/test_processes.py \
	tests/enrollment/test_commands.py tests/assessment/test_commands.py tests/assessment/test_consumers.py \
	tests/system/test_cohort.py tests/malice/test_records.py

orders: setup      ## interleavings, races, takeovers and drivers at their full number, with counts (about two hours on two cores)
	FULL=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(ORDERS)

check: setup       ## style, types, boundaries between services, generated files, locked requirements
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy shared services stack demo storm benchmarks ops tests
	$(BIN)/lint-imports
	$(BIN)/python -m shared.catalogue --check
	$(PYTHON) requirements/lock.py --check

up: setup          ## start the embedded stack
	$(BIN)/python -m stack up

down:              ## stop it
	$(BIN)/python -m stack down

setup: $(READY)    ## the virtual environment, made again when the locked requirements change

$(READY): requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "python 3.11 or later is needed: install it")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

generate: setup    ## contracts/ and the generated documents, from the code
	$(BIN)/python -m shared.catalogue

lock: setup        ## resolve the requirements anew
	$(BIN)/python requirements/lock.py

sbom: setup        ## var/sbom.cdx.json: what the services run with (CycloneDX), from the locked requirements
	@mkdir -p var
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file var/sbom.cdx.json requirements/runtime.txt

audit: setup       ## known weaknesses of what is locked; asks an advisory database, so it needs the network
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements/runtime.txt
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements/dev.txt

clean: down
	rm -rf var
