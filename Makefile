# Each target sets up all that it needs first: a virtual environment in .venv, once, and again when a requirement changes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help start check compare street site test parity verify-voc mutants notebooks lint format benchmark lesson-figures

help:  ## list these targets
	@echo "make start      write a starter file to Question_*/attempts/: an answer without the code of what its exercise teaches;"
	@echo "                EXERCISE=bin_dataset FRAMEWORK=pytorch"
	@echo "make check      check your attempts against the answers, in seconds each; for one, in detail,"
	@echo "                EXERCISE=bin_dataset FRAMEWORK=pytorch, or ATTEMPT=FILE"
	@echo "make compare    train one exercise in all four frameworks and lay the results side by side; variables:"
	@echo "                EXERCISE=unetlike ITERATIONS=300 SEED=0 FRAMEWORKS=\"pytorch keras\" DATA=Dataset DEVICE=auto"
	@echo "make street     Question_street from nothing to the report: draw streets, preprocess, records, train, test, infer;"
	@echo "                FRAMEWORK=pytorch DATA=FOLDER LEVEL=class NETWORK=deeplab ITERATIONS=400 DEVICE=auto SEED=0"
	@echo "make site       make the pages of this repository a site in outputs/site: open index.html there, no server needed"
	@echo "make test       run all tests, the style check among them"
	@echo "make parity     train every exercise in double precision, and show how far the four frameworks are apart:"
	@echo "                hours for all of them; EXERCISE=\"unetlike concat\" ITERATIONS=20 FRAMEWORKS=\"pytorch keras\" narrow it"
	@echo "make mutants    plant the faults of tests/mutations/ one at a time, and show which of them no test finds: over"
	@echo "                half an hour with JOBS=2 on two cores; ONLY=\"newts digits\" for some kinds or names"
	@echo "make verify-voc hold the four frameworks' DeepLabV3 against each other with the published weights and Pascal VOC, which"
	@echo "                Dataset/download_deeplab.py and download_voc.py fetch; WEIGHTS=FILE.pth DEPTH=50 DATA=FOLDER IMAGES=20 FRAMEWORKS=pytorch DEVICE=cpu"
	@echo "make notebooks  write each answer as a Jupyter notebook, with the lesson's text, to outputs/notebooks/;"
	@echo "                EXERCISE=\"unetlike concat\" FRAMEWORKS=\"pytorch keras\" for some"
	@echo "make lint       check style (ruff) and the copies that the answers share"
	@echo "make format     fix style, and carry a changed function to all its copies"
	@echo "make lesson-figures  train every exercise in all frameworks and draw the answers' pictures: an hour or so;"
	@echo "                EXERCISE=unetlike for one"
	@echo "make benchmark  time a training step of each answer against a bare loop: an hour or so"

start: $(INSTALLED)  ## a starter file for an exercise
	@$(BIN)/python tools/start.py --exercise "$(or $(EXERCISE),bin_dataset)" $(if $(FRAMEWORK),--framework "$(FRAMEWORK)")

check: $(INSTALLED)  ## attempts against the answers
	@$(BIN)/python tools/check.py $(if $(ATTEMPT),"$(ATTEMPT)") $(if $(EXERCISE),--exercise "$(EXERCISE)") \
		$(if $(FRAMEWORK),--framework "$(FRAMEWORK)")

compare: $(INSTALLED)  ## one exercise in four frameworks
	@$(BIN)/python tools/compare.py $(if $(EXERCISE),--exercise "$(EXERCISE)") $(if $(ITERATIONS),--iterations "$(ITERATIONS)") \
		$(if $(SEED),--seed "$(SEED)") $(if $(FRAMEWORKS),--frameworks "$(FRAMEWORKS)") $(if $(DATA),--data "$(DATA)") \
		$(if $(DEVICE),--device "$(DEVICE)")

street: $(INSTALLED)  ## the pipeline of Question_street, by five answers
	@$(BIN)/python tools/street.py $(if $(FRAMEWORK),--framework "$(FRAMEWORK)") $(if $(DATA),--data "$(DATA)") \
		$(if $(LEVEL),--level "$(LEVEL)") $(if $(NETWORK),--network "$(NETWORK)") $(if $(ITERATIONS),--iterations "$(ITERATIONS)") \
		$(if $(DEVICE),--device "$(DEVICE)") $(if $(SEED),--seed "$(SEED)")

site: $(INSTALLED)  ## the lessons with tabs for the frameworks, search and dark mode
	@$(BIN)/python tools/build_site.py

test: $(INSTALLED) lint
	@$(BIN)/python -m pytest -n auto --dist loadfile

parity: $(INSTALLED)  ## whole runs in double precision
	@$(BIN)/python tools/parity.py $(if $(EXERCISE),--exercises "$(EXERCISE)") $(if $(ITERATIONS),--iterations "$(ITERATIONS)") \
		$(if $(FRAMEWORKS),--frameworks "$(FRAMEWORKS)")

verify-voc: $(INSTALLED)  ## what needs the published weights and the real data
	@$(BIN)/python tools/verify_voc.py $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(DATA),--data "$(DATA)") $(if $(DEPTH),--depth "$(DEPTH)") \
		$(if $(IMAGES),--images "$(IMAGES)") $(if $(FRAMEWORKS),--frameworks "$(FRAMEWORKS)") $(if $(DEVICE),--device "$(DEVICE)")

mutants: $(INSTALLED)  ## whether the tests find planted faults
	@$(BIN)/python tools/mutants.py $(if $(ONLY),--only "$(ONLY)") $(if $(JOBS),--jobs "$(JOBS)")

notebooks: $(INSTALLED)  ## the answers as notebooks
	@$(BIN)/python tools/notebooks.py $(if $(EXERCISE),--exercise "$(EXERCISE)") $(if $(FRAMEWORKS),--frameworks "$(FRAMEWORKS)")

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python tools/copies.py
	@$(BIN)/python tools/fill_lessons.py --check

format: $(INSTALLED)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python tools/copies.py --fix
	@$(BIN)/python tools/fill_lessons.py

lesson-figures: $(INSTALLED)
	@$(BIN)/python tools/draw_figures.py $(if $(EXERCISE),--exercises "$(EXERCISE)")
	@$(BIN)/python tools/fill_lessons.py

benchmark: $(INSTALLED)
	@$(BIN)/python benchmarks/step_time.py

# The stamp is touched last, so an install that broke off is done again.
$(INSTALLED): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "make: $(PYTHON) is not Python 3.11 with venv, the last that Chainer runs on: try make PYTHON=python3.11, or install it (Debian: python3-venv)" >&2; exit 2; }
	@echo "Setting up .venv with the four frameworks: once, some minutes and some gigabytes"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "setuptools>=70.1,<81"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -r requirements.txt -r requirements-dev.txt
	@touch $(INSTALLED)
