# make demo: the first look. make test: every test. Both install what is missing (Debian's packages), and say so.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.ONESHELL:
.NOTPARALLEL:
.PHONY: help demo build test test-build test-rust test-clients fmt lint clean

TARGET  := $(abspath $(or $(CARGO_TARGET_DIR),target))
CLIENTS := tests/clients
MODULES := $(CLIENTS)/node_modules/.package-lock.json
VENV    := .cache/venv
ARGS    ?=

help: ## this list
	@awk -F ' ## ' '/^[a-z-]+:.* ## / { sub(/:.*/, "", $$1); printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a private Redis, the gateway and a page to look at (ARGS="--listen 127.0.0.1:8080")
	@bash .ci/need redis cc
	@binary=$(TARGET)/release/sse-gateway
	if [[ ! -x $$binary || -n $$(find src Cargo.toml Cargo.lock -newer $$binary -print -quit) ]]; then
	  binary=$(TARGET)/debug/sse-gateway
	  [[ -x $$binary ]] || echo "== building (once; it takes a few minutes)"
	  cargo build --locked
	fi
	exec $$binary dev $(ARGS)

build: ## the release build
	@bash .ci/need cc
	cargo build --release --locked

test: test-rust test-clients ## every test

test-build:
	@bash .ci/need cc
	echo "== building the tests"
	cargo test --workspace --locked --no-run

test-rust: test-build ## the tests in Rust, on a real Redis
	@bash .ci/need redis-test
	echo "== cargo test"
	cargo test --workspace --locked

# Runs the gateway that was built with the tests in Rust: nothing is built twice.
test-clients: test-build $(MODULES) $(VENV)/done ## real browsers, clients and publishers against the gateway
	@bash .ci/need redis-test curl chromium
	echo "== client tests"
	cd $(CLIENTS)
	SSE_GATEWAY_BIN=$(TARGET)/debug/sse-gateway SSE_GATEWAY_PYTHON=$(abspath $(VENV))/bin/python node --test

$(MODULES): $(CLIENTS)/package.json $(CLIENTS)/package-lock.json
	@node -e 'if (Number(process.versions.node.split(".")[0]) < 20) { console.error("The client tests need Node.js 20 or newer, this is " + process.version); process.exit(1); }'
	echo "== npm ci"
	cd $(CLIENTS)
	npm ci --no-audit --no-fund --loglevel=error
	touch node_modules/.package-lock.json

$(VENV)/done: $(CLIENTS)/requirements.txt
	@bash .ci/need python
	echo "== python packages"
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

fmt: ## formats the code
	cargo fmt --all

lint: ## checks format and lints, warnings denied
	@bash .ci/need cc
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

clean: ## removes all that was built or downloaded here
	cargo clean
	rm -rf .cache $(CLIENTS)/node_modules
