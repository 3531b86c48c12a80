# The course's commands. Each builds the virtual environment in .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
CHAPTERS ?=
CONDITIONS ?=
EXECUTED := _build/executed

.PHONY: help setup chapters book html test quick portable lint demo bench
.DEFAULT_GOAL := help

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile | expand -t 16

setup: $(READY)  ## the environment alone

$(READY): requirements.txt pyproject.toml tools/make_venv.py
	@$(PYTHON) tools/make_venv.py $(VENV)

chapters: $(READY)  ## for authors: run every chapter, or CHAPTERS="00_one_page 05_vit", into book/
	$(BIN)/python tools/run_chapters.py $(CHAPTERS)

book: $(READY)  ## for readers: run a copy of every chapter and build the HTML, all under _build/
	$(BIN)/python tools/run_chapters.py --out $(EXECUTED)
	$(BIN)/python tools/build_html.py --notebooks $(EXECUTED)

html: $(READY)  ## build the HTML from the committed outputs (seconds)
	$(BIN)/python tools/build_html.py

test: $(READY)  ## lint, unit tests, every chapter through nbval, strict HTML build
	$(BIN)/python tools/check_all.py

quick: $(READY)  ## lint and the quick unit tests (two minutes): run it while you change something
	$(BIN)/python tools/check_all.py --quick

portable: $(READY)  ## unit tests and chapters as on other processors and with two threads; or CONDITIONS=sse4
	$(BIN)/python tools/check_all.py --portable $(CONDITIONS)

lint: $(READY)  ## ruff
	$(BIN)/ruff check .

demo: $(READY)  ## train a small pruned captioner, caption pictures, draw what was dropped (under five minutes)
	$(BIN)/python tools/demo.py

bench: $(READY)  ## the benchmarks' ratios, with PRUNECAP_PHOTOS set; JSON goes to data/results
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script \
		--json data/results/$$(basename $$script .py).json || exit 1; done
