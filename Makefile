# make demo    set up and show the main job on a real MinIO      make test    set up, check and test everything
# make bench   measure (ONLY=B1,B2 SCALE=1000000 OUT=file.json)   make soak    the long runs (hours)
# Needs Python 3.11 or newer, git and make. Everything else is installed into .venv and ~/.cache/wio.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: setup servers demo test check unit bench soak lock clean
.DEFAULT_GOAL := test

setup: $(VENV)/ready

$(VENV)/ready: requirements.lock pyproject.toml deploy/setup.sh
	sh deploy/setup.sh $(VENV) $(PYTHON)
	touch $@

servers: setup
	@$(BIN)/python -m deploy.programs minio mc versitygw >/dev/null

demo: servers
	@$(BIN)/python -m deploy.demo $(if $(KEEP),--keep)

test: check servers
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: servers
	$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(if $(SCALE),--scale $(SCALE)) $(if $(OUT),--out $(OUT))

soak: servers
	WIO_SOAK=1 WIO_FUZZ=2000000 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --timeout 7200 -m "soak or fuzz" $(ARGS)

# The lock is an export with hashes and without addresses: docs/decisions/0001-lock.md
lock:
	uv lock --upgrade
	uv export --quiet --frozen --all-extras --all-groups --no-emit-project --no-header --no-annotate -o requirements.lock

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
