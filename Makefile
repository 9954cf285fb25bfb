# A thin layer over the command line: `make extract VIDEOS=... TEACHER=... CACHE=...`.
# Without variables, the targets use the demo's videos. Settings are those of the command, unless a
# configuration is given (DISTILL_CONFIG, FINETUNE_CONFIG) or options (ARGS="--epochs 20").

PYTHON   ?= python3
VENV     := .venv
BIN      := $(VENV)/bin
DISTINIT := $(BIN)/distinit
STAMP    := $(VENV)/.installed

WORK     ?= work
VIDEOS   ?= $(WORK)/demo/footage/corpus
TEACHER  ?= efficientnet_lite0
CACHE    ?= $(WORK)/cache
FRAMES   ?= $(WORK)/frames
STUDENT  ?= tiny_r2plus1d_10
RUN      ?= $(WORK)/distill
DATASET  ?= $(WORK)/demo/labelled/motion
SPLITS   ?=
INIT     ?= distinit:$(RUN)
FINETUNE ?= $(WORK)/finetune
REPORT   ?= $(WORK)/audit
TABLE    ?= all
SCALE    ?= smoke
DATA     ?=
FOLDER   ?= $(WORK)
WORKERS  ?= 0
ARGS     ?=
DISTILL_CONFIG  ?=
FINETUNE_CONFIG ?=

VARIABLES := PYTHON VENV WORK VIDEOS TEACHER CACHE FRAMES STUDENT RUN DATASET SPLITS INIT FINETUNE \
  REPORT TABLE SCALE DATA FOLDER WORKERS ARGS DISTILL_CONFIG FINETUNE_CONFIG
GIVEN     := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
UNKNOWN   := $(filter-out $(VARIABLES) MAKE% -%,$(GIVEN))
ifneq ($(UNKNOWN),)
$(error unknown variable $(UNKNOWN); known are: $(VARIABLES))
endif

# The demo's footage is made if it is used.
ifeq ($(VIDEOS),$(WORK)/demo/footage/corpus)
FOOTAGE := footage
endif
ifeq ($(CACHE),$(WORK)/cache)
BENCH_CACHE := $(WORK)/cache/manifest.json
endif
ifeq ($(DATASET),$(WORK)/demo/labelled/motion)
LABELLED := footage
endif

# A default of this file never replaces what a given configuration says: $(call option,CONFIG,NAME,--name).
option  = $(if $(and $(1),$(filter file,$(origin $(2)))),,$(3) '$($(2))')
# The network is named where the init does not determine it.
NETWORK = $(if $(filter scratch inflated inflated:%,$(INIT)),$(call option,$(FINETUNE_CONFIG),STUDENT,--student))
recipe  = @echo "settings: $(if $(1),$(1),the defaults of distinit $@, which follow the videos)"

.DEFAULT_GOAL := help
.PHONY: help setup demo footage plan doctor runs extract distill finetune evaluate audit reproduce test check bench bench-extract bench-distill bench-cache clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP) ## Create .venv with all dependencies

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 12))' || \
	  { echo "distinit needs Python >= 3.12; set PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements-dev.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $(STAMP)

demo: setup ## Run the whole method and show its gain; takes about 4 minutes on two cores
	$(DISTINIT) demo --out $(WORK)/demo $(ARGS)

footage: setup
	@$(DISTINIT) demo --out $(WORK)/demo --only footage

plan: setup $(FOOTAGE) ## Estimate the frames, bytes and hours of an extraction: VIDEOS= TEACHER=
	$(DISTINIT) plan --videos '$(VIDEOS)' --teacher '$(TEACHER)' $(ARGS)

doctor: setup ## Check whether this machine has everything that is needed
	$(DISTINIT) doctor $(ARGS)

runs: setup ## List the training runs below a folder: FOLDER=
	$(DISTINIT) runs '$(FOLDER)' $(ARGS)

extract: setup $(FOOTAGE) ## Run teachers over videos and write a target cache: VIDEOS= TEACHER= CACHE= FRAMES= WORKERS=
	$(DISTINIT) extract --videos '$(VIDEOS)' --teacher '$(TEACHER)' --cache '$(CACHE)' \
	  --frames '$(FRAMES)' --workers $(WORKERS) $(ARGS)

distill: setup ## Train a student from a target cache: CACHE= FRAMES= STUDENT= RUN= WORKERS= DISTILL_CONFIG=
	$(call recipe,$(DISTILL_CONFIG))
	$(DISTINIT) distill $(if $(DISTILL_CONFIG),--config '$(DISTILL_CONFIG)') --cache '$(CACHE)' \
	  --frames '$(FRAMES)' --out '$(RUN)' $(call option,$(DISTILL_CONFIG),STUDENT,--student) \
	  $(call option,$(DISTILL_CONFIG),WORKERS,--workers) $(ARGS)

finetune: setup $(LABELLED) ## Finetune a student on a labelled dataset: DATASET= SPLITS= INIT= STUDENT= FINETUNE= WORKERS= FINETUNE_CONFIG=
	$(call recipe,$(FINETUNE_CONFIG))
	$(DISTINIT) finetune $(if $(FINETUNE_CONFIG),--config '$(FINETUNE_CONFIG)') \
	  --dataset '$(DATASET)' $(if $(SPLITS),--splits '$(SPLITS)') --init '$(INIT)' $(NETWORK) \
	  --out '$(FINETUNE)' $(call option,$(FINETUNE_CONFIG),WORKERS,--workers) $(ARGS)

evaluate: setup ## Evaluate a finetuned run again: FINETUNE=
	$(DISTINIT) evaluate --run '$(FINETUNE)' $(ARGS)

audit: setup ## Report how confident the teachers were: CACHE= FRAMES= REPORT=
	$(DISTINIT) audit '$(CACHE)' --frames '$(FRAMES)' --out '$(REPORT)' $(ARGS)

reproduce: setup ## Run the paper's tables, with our rows beside the paper's: TABLE= SCALE= DATA=
	$(DISTINIT) reproduce '$(TABLE)' --scale '$(SCALE)' $(if $(DATA),--data '$(DATA)') \
	  --out '$(WORK)/reproduce-$(notdir $(SCALE))' $(ARGS)

test: setup ## Run all tests, in two processes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

check: setup ## Check lint rules, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup footage ## Run small benchmarks on the demo's footage: frame store, encodings, extraction
	$(BIN)/python benchmarks/frames.py '$(WORK)/demo/footage/corpus/bikes_000.mp4'
	$(BIN)/python benchmarks/encodings_study.py --videos '$(WORK)/demo/footage/corpus' \
	  --teacher efficientnet_lite0 --frames 64
	$(BIN)/python benchmarks/extract.py

bench-extract: setup ## Measure frames/s of decoding, teachers and whole extraction: ARGS="--videos ..."
	$(BIN)/python benchmarks/extract.py $(ARGS)

bench-distill: setup $(BENCH_CACHE) ## Measure distillation steps, target look-ups and a live teacher: CACHE= FRAMES=
	$(BIN)/python benchmarks/distill.py --cache '$(CACHE)' --frames '$(FRAMES)' $(ARGS)
	$(BIN)/python benchmarks/distill.py --cache '$(CACHE)' --frames '$(FRAMES)' \
	  --student r2plus1d_18 --batch 4 --steps 2 --repetitions 3 $(ARGS)
	$(BIN)/python benchmarks/loader_memory.py

bench-cache: setup ## Measure opening a cache of 100 million frames, and reading rows at random: ARGS="--frames ..."
	$(BIN)/python benchmarks/cache.py $(ARGS)

$(WORK)/cache/manifest.json:
	@$(MAKE) extract

clean: ## Remove the default work folder and the caches of the development tools
	rm -rf work .mypy_cache .ruff_cache .pytest_cache .hypothesis
