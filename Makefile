# make demo    the main job, in under five minutes, with a report at the end
# make test    the tests, less those that take many seconds each (marked slow)
# make test-all    all of them
# make examples-full    every example whole, its printed numbers held against its header (about 20 minutes of CPU)
# make lint    ruff and mypy --strict
# make docs    the site, in docs/_build/html; make linkcheck asks its external links
# make notebooks    the notebooks alone; make docs runs them too
# make dist    the wheel and the source distribution, checked, in dist/
# make types    how many of the public types are known to pyright, of the wheel; at least 99 %
# make test-min    the core with the lowest versions of its dependencies, in .venv-min
# Each makes .venv once, with the tested versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all examples-full lint format bench docs linkcheck notebooks dist types test-min

.venv/.installed: pyproject.toml constraints.txt
	@echo "sdegen: making .venv with the versions of constraints.txt (once; a few minutes, mostly torch) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sdegen needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: .venv/.installed
	@echo "sdegen: running the demo; it ends with the path of its report …"
	@$(BIN)/sdegen demo

test: .venv/.installed
	@echo "sdegen: running the tests on $$(nproc 2>/dev/null || echo 2) cores …"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-all: .venv/.installed
	@echo "sdegen: running all tests on $$(nproc 2>/dev/null || echo 2) cores …"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

examples-full: .venv/.installed
	@echo "sdegen: running the examples whole, two at a time (half an hour) …"
	@$(BIN)/python tests/examples_full.py

lint: .venv/.installed
	@echo "sdegen: linting …"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: .venv/.installed
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# the site's own packages, which nothing else needs
.venv/.docs: .venv/.installed
	@$(BIN)/python -c 'import myst_nb, pydata_sphinx_theme, sphinx_copybutton, sphinx_design, sphinx_gallery' 2>/dev/null || { \
		echo "sdegen: adding what builds the site to .venv (once) …" && \
		$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,docs]'; }
	@touch $@

docs: .venv/.docs
	@echo "sdegen: building the site; every program on it is run …"
	@rm -rf docs/_build docs/api docs/gallery
	@OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -j 2 -b html docs docs/_build/html
	@$(BIN)/python docs/check_links.py docs/_build/html
	@echo "sdegen: the site is at $(CURDIR)/docs/_build/html/index.html"

linkcheck: .venv/.docs
	@$(BIN)/python -m sphinx -q -j 2 -D nb_execution_mode=off -D plot_gallery=0 -b linkcheck docs docs/_build/linkcheck

# make docs runs the notebooks too, as pages; this one runs them alone, cell by cell
notebooks: .venv/.installed
	@echo "sdegen: running the notebooks …"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 docs/notebooks

bench: .venv/.installed
	@echo "sdegen: running the benchmarks; results go to benchmarks/results …"
	@$(BIN)/python -m benchmarks.samplers && $(BIN)/python -m benchmarks.backends && $(BIN)/python -m benchmarks.time_grids && $(BIN)/python -m benchmarks.posteriors && $(BIN)/python -m benchmarks.pulses && $(BIN)/python -m benchmarks.random_problems && $(BIN)/python -m benchmarks.weak_error && $(BIN)/python -m benchmarks.solver_costs && $(BIN)/python -m benchmarks.certificates && $(BIN)/python -m benchmarks.fokker_planck && $(BIN)/python -m benchmarks.fokker_planck_accuracy && $(BIN)/python -m benchmarks.fokker_planck_costs && $(BIN)/python -m benchmarks.ensemble && $(BIN)/python -m benchmarks.channels && $(BIN)/python -m benchmarks.large_ensembles && $(BIN)/python -m benchmarks.overhead && $(BIN)/python -m benchmarks.imports && $(BIN)/python -m benchmarks.explore && $(BIN)/python -m benchmarks.averages && $(BIN)/python -m benchmarks.particles && $(BIN)/python -m benchmarks.error_bars && $(BIN)/python -m benchmarks.identities && $(BIN)/python -m benchmarks.verdicts && $(BIN)/python -m benchmarks.zoo && $(BIN)/python -m benchmarks.zoo --clean 1000 --size 100000 && $(BIN)/python -m benchmarks.step_bias && $(BIN)/python -m benchmarks.kinetic && $(BIN)/python -m benchmarks.scores && $(BIN)/python -m benchmarks.killed_training && $(BIN)/python -m benchmarks.training_overhead && $(BIN)/python -m benchmarks.held_out && $(BIN)/python -m benchmarks.one_data_set_all_models && $(BIN)/python -m benchmarks.table

dist: .venv/.installed
	@echo "sdegen: building the wheel and the source distribution in dist/ …"
	@rm -rf dist build
	@$(BIN)/python -m build --no-isolation --outdir dist . >/dev/null
	@$(BIN)/twine check --strict dist/*

types: dist
	@echo "sdegen: asking pyright for the types of the wheel …"
	@$(BIN)/python tests/release/verify_types.py dist

# older torch than this comes from the index with CUDA: make test-min TORCH=2.10.0 takes it
TORCH ?= 2.13.0
test-min:
	@echo "sdegen: making .venv-min with the versions of constraints-min.txt …"
	@$(PYTHON) -m venv .venv-min
	@sed 's/^torch==.*/torch==$(TORCH)/' constraints-min.txt > .venv-min/constraints.txt
	@.venv-min/bin/pip install --quiet --disable-pip-version-check -c .venv-min/constraints.txt -e . pytest hypothesis
	@OMP_NUM_THREADS=1 .venv-min/bin/python -m pytest -q -m "not slow" tests/core tests/sde/test_contract.py tests/solvers/test_contract.py tests/fokker_planck/test_stationary.py
