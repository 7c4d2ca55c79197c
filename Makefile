# make sanitize   sets up .venv and sanitizes the embedded sample
# make test       sets up .venv with everything the tests need, and runs them; JOBS=1: one by one
# make bench      measures speed, side by side on this machine; hours
# make quality    lint and types; make style puts right what it can
# make docs      builds the documentation into out/site, warnings are errors
# make dist      builds wheel and sdist
# make schemas    writes schemas/ from ppfr_ops/contracts; make reference the options page
# make torture    an hour of hostile inputs and of runs that are killed, with fresh seeds
# make lock       resolves the dependencies anew
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
OUT ?= out
BIN = $(VENV)/bin
EXTRAS = dev,all,docs

# Processes that tests are spread over; every file stays in one, and so do all that start Ray.
JOBS ?= 2

.PHONY: sanitize check test bench quality style docs schemas reference dist lock clean

sanitize: $(VENV)/.core
	$(BIN)/ppfr sample $(OUT)/sample
	$(BIN)/ppfr sanitize --overwrite --input $(OUT)/sample --output $(OUT)/sanitized

test: $(VENV)/.all
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST)

# As many as fit: 50,000 pictures take about a quarter of an hour on an idle core.
TORTURE_MINUTES ?= 15
torture: $(VENV)/.all
	$(BIN)/python tests/fuzz/campaign.py --pictures 50000 --parquets 2000 --tars 2000 \
		$(foreach kind,arrow arrow-list csv delta hdf5 iceberg jsonl lance list numpy recordio \
			tar-member tgz tsv verification zip,--$(kind)s 500) \
		--minutes $(TORTURE_MINUTES)
	PPFR_ROUND_TRIP=1000 $(BIN)/python -m pytest -q tests/test_formats.py -k same_release
	$(BIN)/python tests/chaos/kills.py --kills 200 --minutes $(TORTURE_MINUTES)
	$(BIN)/python tests/chaos/payments.py --kills 50 --minutes $(TORTURE_MINUTES)
	$(BIN)/python tests/chaos/mishaps.py --mishaps 200 --minutes $(TORTURE_MINUTES)
	PPFR_TORTURE=1 $(BIN)/python -m pytest tests/test_growing_release.py tests/match/test_hostile.py
	if $(BIN)/python -c 'import atheris' 2>/dev/null; then folder=$$(mktemp -d); \
		$(BIN)/python tests/fuzz/atheris_decode.py -max_total_time=300 $$folder; code=$$?; \
		rm -r $$folder; exit $$code; fi

# Side by side on this machine; hours. docs/performance.md says what came out, when and where.
bench: $(VENV)/.all
	$(BIN)/python bench/pipeline_efficiency.py --engine local ray --faces 40000
	$(BIN)/python bench/anonymizer.py
	$(BIN)/python bench/photographs.py ../shared/data/lfw_raw --default
	$(BIN)/python bench/accelerator.py
	$(BIN)/python bench/million_units.py
	$(BIN)/python bench/million_units.py --requests 20000
	$(BIN)/python bench/million_units.py --whole 20000

# What a first change needs: no engine, no extra, no weights of others.
CHECKED = tests/test_house.py tests/test_errors.py tests/test_images.py tests/test_methods.py \
	tests/test_contracts.py tests/test_schemas.py tests/test_units.py tests/test_kept.py \
	tests/test_ledger.py tests/test_entries.py tests/test_policy.py tests/test_faces.py
check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n $(JOBS) -x $(CHECKED)

quality: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(VENV)/.all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.all
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir $(OUT)/site

schemas: $(VENV)/.core
	$(BIN)/python -m ppfr_ops.contracts.files schemas

reference: $(VENV)/.core
	$(BIN)/python -m ppfr_ops.cli.reference > docs/reference/options.md

dist: $(VENV)/.all
	rm -rf dist && $(BIN)/python -m build --outdir dist . && rm -rf build

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable .
	touch $@

$(VENV)/.check: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[check]'
	touch $@

$(VENV)/.all: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[$(EXTRAS)]'
	touch $@ $(VENV)/.core

lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet '.[$(EXTRAS)]'
	build/lock/bin/pip freeze --exclude ppfr-sanitizer | sed 's/+cpu$$//' > requirements.lock
	rm -rf build

clean:
	rm -rf $(VENV) build out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
