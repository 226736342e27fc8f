# make run    the page on http://127.0.0.1:7860      make run ARGS="--port 8000"
# make test   the whole suite                        make test ARGS="-k ddim"
# make lint   style checks                           make clean   remove what make made
# make space NAME=user/space    upload to a Hugging Face Space
# make space-check              find out offline whether the Space would run

VENV := .venv
PYTHON := $(VENV)/bin/python
# The stamps carry the content of the requirements: a change installs, a second run starts at once.
RUN_READY := $(VENV)/.run-$(shell cat requirements.txt | cksum | cut -d' ' -f1)
# Two processes, each of which takes one file of tests after the other.
WORKERS := -n 2 --dist loadfile
TEST_READY := $(VENV)/.test-$(shell cat requirements.txt requirements-dev.txt | cksum | cut -d' ' -f1)
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))

.PHONY: run test lint clean space space-check
.DELETE_ON_ERROR:

run: $(RUN_READY)
	$(PYTHON) app.py $(ARGS)

test: $(TEST_READY)
	$(PYTHON) -m pytest $(WORKERS) $(ARGS)

lint: $(TEST_READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	if [ -x $(VENV)/bin/biome ]; then $(VENV)/bin/biome check --error-on-warnings; fi

space: $(RUN_READY)
	@$(PYTHON) -m demo.space publish "$(NAME)"

space-check: $(RUN_READY)
	@$(PYTHON) -m demo.space check

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN_READY): | $(PYTHON)
	$(PYTHON) -m pip install --disable-pip-version-check -r requirements.txt
	@touch $@

$(TEST_READY): | $(PYTHON)
	$(PYTHON) -m pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(RUN_READY)

$(PYTHON):
	@for python in python3.12 python3.11 python3.10 python3; do \
		if $$python -c '$(SUITABLE)' 2>/dev/null; then \
			echo "$$python -m venv $(VENV)"; \
			exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "No Python 3.10, 3.11 or 3.12 with venv was found; install one" \
		"(Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.12;" \
		"or from https://www.python.org/downloads/)." >&2; \
	exit 1
