# `make` lists the targets. Each can be run again and again, as root or as an ordinary user with sudo.

PYTHON := .venv/bin/python
# `make … ENGINE=double` does without vLLM: the double answers at once, and with nothing of use.
ENGINE := vllm
# Of the machine with a GPU; only `make gpu-kit` asks for it.
PYTHON312 := python3.12
DEVDB := $(PYTHON) -m pg_bridge.dev.devdb --engine $(ENGINE)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-engines test-upgrade test-matrix lint bench bench-faults bench-planner bench-paper bench-feed bench-sembench gpu-kit devdb devdb-stop dist deb all install clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## install what is missing: Debian packages, .venv, the extension's files, .venv-engine
	@ENGINE=$(ENGINE) scripts/setup.sh

demo: setup ## ask the model in the box about film reviews in a throw-away database
	@$(DEVDB) run -- psql -X -f sql/demo.sql

# More processes than there are cores, mostly, for many tests wait; each with a PostgreSQL of its own, and one starts the vLLM.
# Which tests stay together says tests/parallel.py.
PYTEST := .venv/bin/pytest --numprocesses=$$(( $$(nproc) < 2 ? 3 : 4 ))

test: setup lint ## lint, then the tests, on throw-away PostgreSQLs and a real vLLM
ifeq ($(ENGINE), vllm)
	@$(PYTEST)
	@# The recipe of the model in the box needs torch, which stands in the engine's environment only.
	@if [ -x .venv-engine/bin/pytest ]; then .venv-engine/bin/pytest -q tests/unit/test_model_recipe.py; fi
else
	@$(PYTEST) -m 'not vllm and not slow and not upgrade and not engines'
endif

test-slow: setup ## what takes long: large tables, optima by search, generated statements by the thousand
	@$(PYTEST) -m "slow or hypothesis" --hypothesis-profile=thorough
	@echo "[test-slow] generated statements" && $(PYTHON) -m tests.generated --count 3000 --seed 20261128

test-engines: setup ## other engines than vLLM alone, each asked through SQL; prints what each can do, for docs/engines.md
	@scripts/engines.sh
	@.venv/bin/pytest -m engines tests/engines --write-table

test-upgrade: setup ## pg_upgrade and pg_dump from PG_CONFIG's PostgreSQL to PG_CONFIG_NEW's, with the extension in use
	@.venv/bin/pytest -m upgrade tests/upgrade

lint: setup ## ruff, mypy and the import contracts
	@echo "[lint] ruff" && .venv/bin/ruff check --quiet . && .venv/bin/ruff format --check --quiet .
	@echo "[lint] mypy" && .venv/bin/mypy --no-error-summary
	@echo "[lint] import contracts" && .venv/bin/lint-imports --no-cache >/dev/null || .venv/bin/lint-imports

BENCHMARKS := throughput imports batching foreign estimate ledger joins rows_per_prompt rank alike cascade jobs real_engine \
	front_end replicas

bench: setup ## the benchmarks; results as ratios, kept in benchmarks/results
	@set -e; for name in $(BENCHMARKS); do echo "[bench] $$name"; \
		$(PYTHON) -m benchmarks.$$name --output benchmarks/results/$$name.txt; done

bench-faults: setup ## what is asked again after a fault in the middle; as root, with a full disk, too
	@echo "[bench] faults" && $(PYTHON) -m benchmarks.faults --output benchmarks/results/faults.txt

bench-planner: setup ## what the planner reaches beside others, and what it costs; takes some twenty minutes
	@echo "[bench] planner" && $(PYTHON) -m benchmarks.planner --output benchmarks/results/planner.txt

bench-feed: setup ## how well a GPU would be fed, by a model of one; takes ten minutes
	@$(PYTHON) -m benchmarks.feed --output benchmarks/results/feed.txt --charts benchmarks/results

bench-paper: setup ## the paper's table, re-run on a real vLLM; takes half an hour on two cores
	@$(PYTHON) -m benchmarks.paper --output benchmarks/results/paper.txt --charts benchmarks/results

bench-sembench: setup ## SemBench's ten questions as SQL: what each costs, and how good the answers are
	@$(PYTHON) -m benchmarks.sembench --output benchmarks/results/sembench.txt

gpu-kit: setup ## pack what a bare machine with a GPU needs to run the paper's filters; benchmarks/gpu/README.md
	@$(PYTHON) -m benchmarks.gpu.pack --python $(PYTHON312) $(if $(WHOLE),--whole)

devdb: setup ## leave a database and an engine running; prints dsn= and engine=
	@$(DEVDB) up

devdb-stop: ## end what `make devdb` started
	@if [ -x $(PYTHON) ]; then $(DEVDB) down; fi

test-matrix: ## build and test on Debian 12, 13 and sid, in throw-away roots; needs root, takes an hour or two
	@/usr/bin/python3 scripts/matrix.py $(MATRIX)

dist: setup ## wheel, sdist, PGXN's archive and, as root with debootstrap, Debian packages into dist/, with checksums
	@$(PYTHON) scripts/dist.py --if-possible

deb: setup ## the Debian packages alone: built, linted, installed and tried on Debian 12 and 13; as root, with debootstrap
	@$(PYTHON) scripts/dist.py --only debian

# What `pgxn install pg_bridge` calls, with PG_CONFIG. Nothing but Python's own library is needed; the package itself is pip's.
PG_CONFIG := pg_config

all:
	@:

install: ## the extension's files and the native module into PG_CONFIG's server, without .venv
	@python3 -m pg_bridge.cli.install --pg-config "$(PG_CONFIG)" --destdir "$(DESTDIR)"

clean: devdb-stop ## remove what was made in this checkout, the environments included
	@find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@rm -rf .venv .venv-engine .venv-engines .devdb .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .gpu-kit build dist \
		tests/regress/results *.egg-info || { echo "[clean] some files are another user's: sudo make clean"; exit 1; }
	@echo "[clean] done"
