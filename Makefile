# `make` alone lists the targets. Set-up happens by itself, and only when a lock file has changed.

# The first Python that fits, from the one that is tested most; asked to run, since some commands of
# such a name only point elsewhere.
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$p -c '$(FITS)' 2>/dev/null && { echo $$p; exit; }; done; echo python3)
VENV := .venv
BIN := $(VENV)/bin
LOCKS := pyproject.toml requirements.lock data.lock
# Installed without what it asks for: the extra `edge` names what it needs here.
BARE := executorch
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

.DEFAULT_GOAL := help
.PHONY: help lab test lint bench notebooks site slides wheel student lock clean install

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z]+:.*##/ {printf "%-12s%s\n", $$1, $$2}' Makefile

lab: $(VENV)/.lab  ## set up and open the course in JupyterLab; ARGS="--no-browser --port=8899"
	cd notebooks && PATH="$(abspath $(BIN)):$$PATH" jupyter lab $(LAB_FLAGS) $(ARGS) 00_start_here.ipynb

test: $(VENV)/.test lint  ## set up and prove that everything works; QUICK=1 only what changed
	OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(ARGS) \
		$(if $(QUICK),--quick $$($(BIN)/python tests/quick.py))

portable: $(VENV)/.test  ## run claims and solved notebooks as other processors would; ARGS="05 13"
	PATH="$(abspath $(BIN)):$$PATH" python tests/portable.py $(ARGS)

bench: $(VENV)/.test  ## measure the library beside its peers, and the course: benchmarks/RESULTS.md; QUICK=1; ARGS="limits"
	OMP_NUM_THREADS=1 PATH="$(abspath $(BIN)):$$PATH" python -m benchmarks.bench $(if $(QUICK),--quick) $(ARGS)

lint: $(VENV)/.test  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

notebooks: $(VENV)/.test  ## derive both notebooks of every lesson that changed, and run it
	PATH="$(abspath $(BIN)):$$PATH" course build $(ARGS)

site: $(VENV)/.site  ## build the web book, build/site/html; BOOK=student: without solutions, build/site-student/html
	PATH="$(abspath $(BIN)):$$PATH" python book/build.py $(BOOK)

slides: $(VENV)/.site  ## build a deck for a lecture on each chapter: build/slides/index.html
	PATH="$(abspath $(BIN)):$$PATH" python -m book.slides

wheel:  ## build dist/*.whl, the course for `pip install`, from what is committed
	rm -rf build/wheel && mkdir -p build/wheel
	git archive HEAD | tar -x -C build/wheel
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist build/wheel

student:  ## build dist/student-edition.zip, the course without model answers, from what is committed
	$(PYTHON) tools/student_edition.py

# Of the oldest Python: what it can install, the newer ones can, too. tools/resolve.py asks.
lock:  ## renew requirements.lock: the newest that pyproject.toml allows, torch as it was
	python3.11 -m venv --clear $(VENV)/new
	$(VENV)/new/bin/python -m pip install --quiet --no-compile "$$(grep ^torch== requirements.lock)" -e '.[test]'
	$(VENV)/new/bin/python -m pip install --quiet --no-compile --no-deps $(BARE)
	$(VENV)/new/bin/python -m pip list --format=freeze --exclude-editable --exclude pip > $(VENV)/new/list
	sed 's/+.*//' $(VENV)/new/list | LC_ALL=C sort -f > requirements.lock
	rm -r $(VENV)/new

clean:  ## remove the environment and what was built; your notebooks and your progress stay
	rm -rf $(VENV) build dist removing_redundancy.egg-info

# Python may keep its compiled modules: without them each kernel takes seconds longer to start.
unexport PYTHONDONTWRITEBYTECODE

# JupyterLab refuses to run as root unless told so; containers and CI are often root.
LAB_FLAGS := $(if $(filter 0,$(shell id -u)),--allow-root)

# A stamp is written last, so an interrupted set-up starts again. `.site` holds all that `.lab` does,
# and `.test` all that `.site` does.
$(VENV)/.lab: $(LOCKS)
	@$(MAKE) --no-print-directory install EXTRA=classroom STAMP=$@

$(VENV)/.site: $(LOCKS)
	@$(MAKE) --no-print-directory install EXTRA=site STAMP=$@

$(VENV)/.test: $(LOCKS)
	@$(MAKE) --no-print-directory install EXTRA=test STAMP=$@

install:
	@test -x $(BIN)/pip || $(PYTHON) -c '$(FITS)' || { echo "This course needs Python 3.11 to 3.14;" \
		"$(PYTHON) is another or not there. Try: make PYTHON=/path/to/python3.13"; exit 1; }
	@echo "setting up $(VENV) ($(EXTRA)) …"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/which_torch.py
	@$(INSTALL) -c requirements.lock -e '.[$(EXTRA)]'
	@$(INSTALL) --no-deps -r data.lock
	@$(if $(filter test,$(EXTRA)),$(INSTALL) --no-deps -c requirements.lock $(BARE))
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": false}}' \
		> $(VENV)/share/jupyter/lab/settings/overrides.json
	@mkdir -p $(VENV)/etc/jupyter/labconfig
	@echo '{"disabledExtensions": {"@jupyter/nbgrader": true}}' \
		> $(VENV)/etc/jupyter/labconfig/page_config.json
	@touch $(STAMP) $(if $(filter site test,$(EXTRA)),$(VENV)/.lab) $(if $(filter test,$(EXTRA)),$(VENV)/.site)
