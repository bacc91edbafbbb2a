# `make help` lists the targets. Everything that is needed installs itself (tests/flipside_testbed/tools.py).
PYTHON := /usr/bin/python3
TESTBED := PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 $(PYTHON)
PYTHON_FILES := $(wildcard tests salt master-plugin tasks.py)
# One set of features for all of a test run, so that nothing is compiled twice.
FAULTS := --features flipside-agent/faults

.PHONY: help demo demo-down test test-fast rust-tests lint fmt bench walk package

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

demo: ## sets everything up and shows the main job; APP=DIR your own Django project, KEEP=1 leaves it running, RUNTIME=docker, SALT=3008
	@$(TESTBED) tests/demo.py up $(if $(APP),--app "$(APP)") $(if $(KEEP),--keep) $(if $(SALT),--salt "$(SALT)") \
		$(if $(RUNTIME),--runtime "$(RUNTIME)")

demo-down: ## stops a demo that was left running, and removes what it made
	@$(TESTBED) tests/demo.py down

test: rust-tests ## all tests, on real Salt, uWSGI, nginx and memcached
	@$(TESTBED) tests/run.py

test-fast: rust-tests ## the tests without Salt, containers or servers
	@$(TESTBED) tests/run.py -m quick

rust-tests:
	@uv="$$($(TESTBED) -m flipside_testbed.tools uv)" && export FLIPSIDE_UV="$$uv" && \
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace --locked $(FAULTS); \
	else cargo test --workspace --locked $(FAULTS); fi

lint: ## rustfmt, clippy with warnings as errors, ruff
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked $(FAULTS) -- -D warnings
	@ruff="$$($(TESTBED) -m flipside_testbed.tools ruff)" && \
	"$$ruff" check --no-cache --config tests/ruff.toml $(PYTHON_FILES) && \
	"$$ruff" format --no-cache --check --config tests/ruff.toml $(PYTHON_FILES)

fmt: ## formats Rust and Python
	cargo fmt --all
	@ruff="$$($(TESTBED) -m flipside_testbed.tools ruff)" && \
	"$$ruff" check --no-cache --fix-only --quiet --config tests/ruff.toml $(PYTHON_FILES) && \
	"$$ruff" format --no-cache --config tests/ruff.toml $(PYTHON_FILES)

bench: ## figures beside those of a peer, measured in one run; NAME=... one of them
	@$(TESTBED) tests/bench/run.py $(NAME)

walk: ## kills the agent at every moment of every step, under load; KILLS=100 at so many random times, FULL=1 full disks, HARM=1 other victims
	@$(TESTBED) tests/walk.py $(if $(KILLS),--random $(KILLS)) $(if $(FULL),--full-disk) $(if $(HARM),--harm) $(if $(TWICE),--twice) $(WAYS)

package: ## the two programs as a release build, stripped
	cargo build --release --workspace --bins --locked
	@ls -l target/release/flipside target/release/flipside-agent
