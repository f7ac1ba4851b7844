# make demo: the first look. make test: every test. Both install what is missing (Debian's packages), and say so.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.ONESHELL:
.NOTPARALLEL:
.PHONY: help demo dashboard screenshots build bench bench-quick test test-build test-rust test-http2 test-upgrade test-js test-clients test-deploy fmt lint deny sbom clean

TARGET  := $(abspath $(or $(CARGO_TARGET_DIR),target))
CLIENTS := tests/clients
JS      := clients/js
BOARD   := examples/dashboard
# What npm ci has made for each of them.
MODULES := node_modules/.package-lock.json
PAGE    := $(BOARD)/dist/index.html
VENV    := .cache/venv
ARGS    ?=

help: ## this list
	@awk -F ' ## ' '/^[a-z-]+:.* ## / { sub(/:.*/, "", $$1); printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## a private Redis, the gateway and a page to look at (ARGS="--listen 127.0.0.1:8080")
	@bash .ci/need redis cc
	@binary=$(TARGET)/release/sse-gateway
	if [[ ! -x $$binary || -n $$(find src clients/js/src Cargo.toml Cargo.lock -newer $$binary -print -quit) ]]; then
	  binary=$(TARGET)/debug/sse-gateway
	  [[ -x $$binary ]] || echo "== building (once; it takes a few minutes)"
	  cargo build --locked -p sse-gateway
	fi
	exec $$binary dev $(ARGS)

# The demo's choice of a binary, for what needs a gateway and no fresh one.
GATEWAY  = $(or $(SSE_GATEWAY_BIN),$(TARGET)/release/sse-gateway)

dashboard: $(PAGE) ## the example dashboard, with all it needs (ARGS="--port 8088")
	@bash .ci/need redis cc
	[[ -x $(GATEWAY) ]] || cargo build --release --locked -p sse-gateway
	SSE_GATEWAY_BIN=$(GATEWAY) exec node $(BOARD)/start.js $(ARGS)

screenshots: $(PAGE) ## the pictures of the dashboard in docs/images (takes a minute)
	@bash .ci/need redis cc chromium
	[[ -x $(GATEWAY) ]] || cargo build --release --locked -p sse-gateway
	SSE_GATEWAY_BIN=$(GATEWAY) node $(BOARD)/screenshots.js

build: ## the release build
	@bash .ci/need cc
	cargo build --release --locked -p sse-gateway

bench: ## the gateway beside yardsticks and peers, into docs/benchmarks.md (12 minutes on a quiet machine); fails if it lost anything or is too dear
	@bash .ci/need cc redis python nchan
	cargo build --release --workspace --locked
	held=0
	$(TARGET)/release/loadtest bench --out docs || held=$$?
	# 1: measured, but the gateway did not hold what it must. The page is written all the same, and its plots belong to it.
	[[ $$held -le 1 ]] || exit $$held
	[[ -x .cache/bench/bin/python ]] || python3 -m venv .cache/bench
	.cache/bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement loadtest/requirements.txt
	.cache/bench/bin/python loadtest/plot.py docs
	exit $$held

bench-quick: ## the same in 2 minutes: a table only, nothing to quote
	@bash .ci/need cc redis nchan
	cargo build --release --workspace --locked
	out=$$(mktemp -d)
	trap 'rm -rf "$$out"' EXIT
	$(TARGET)/release/loadtest bench --quick --out "$$out"

test: test-rust test-http2 test-upgrade test-js test-clients test-deploy ## every test (as root: those of the deployment mount and chroot)

test-build:
	@bash .ci/need cc
	echo "== building the tests"
	cargo test --workspace --locked --no-run

test-rust: test-build ## the tests in Rust, on a real Redis
	@bash .ci/need redis-test python openssl
	echo "== cargo test"
	cargo test --workspace --locked

# The last commit with the library's first version. Built from the history, since no release is there to be fetched.
OLD     := 393071e
OLD_DIR := .cache/old-$(OLD)

test-upgrade: test-build $(OLD_DIR)/done ## gateways of an earlier version replaced by this one and put back, under load
	@bash .ci/need redis-test
	echo "== upgrade from $(OLD)"
	SSE_GATEWAY_OLD_BIN=$(abspath $(OLD_DIR))/target/debug/sse-gateway cargo test --locked -p sse-gateway --test gateway -- --ignored upgrade::

# h2spec has no go.mod: tests/h2spec pins it and what it needs to versions that Debian 12's Go builds.
H2SPEC := .cache/bin/h2spec

test-http2: test-build $(H2SPEC) ## h2spec against the gateway, without TLS and with it
	@bash .ci/need redis-test openssl
	echo "== h2spec"
	SSE_GATEWAY_H2SPEC=$(abspath $(H2SPEC)) cargo test --locked -p sse-gateway --test gateway -- --ignored h2spec::

$(H2SPEC): tests/h2spec/go.mod tests/h2spec/go.sum
	@command -v go >/dev/null || bash .ci/need go
	echo "== building h2spec"
	cd tests/h2spec
	GOFLAGS=-mod=readonly go build -o $(abspath $@) github.com/summerwind/h2spec/cmd/h2spec

$(OLD_DIR)/done:
	@bash .ci/need cc
	echo "== building $(OLD), to upgrade from"
	rm -rf $(OLD_DIR)
	mkdir -p $(OLD_DIR)/source
	git archive $(OLD) | tar -x -C $(OLD_DIR)/source || { echo "the history has no $(OLD): make test needs a clone with its history (git fetch --unshallow)"; exit 1; }
	CARGO_TARGET_DIR=$(abspath $(OLD_DIR))/target cargo build --locked --manifest-path $(OLD_DIR)/source/Cargo.toml
	rm -rf $(OLD_DIR)/target/debug/{deps,build,incremental,.fingerprint}
	touch $@

test-js: $(JS)/$(MODULES) ## types, size and parts of the JavaScript client
	@echo "== the JavaScript client"
	cd $(JS)
	npm run --silent check
	node --test tests/

# Runs the gateway that was built with the tests in Rust: nothing is built twice.
test-clients: test-build $(CLIENTS)/$(MODULES) $(JS)/$(MODULES) $(PAGE) $(VENV)/done ## real browsers, clients and publishers against the gateway
	@bash .ci/need redis-test curl chromium
	echo "== client tests"
	cd $(CLIENTS)
	SSE_GATEWAY_BIN=$(TARGET)/debug/sse-gateway SSE_GATEWAY_PYTHON=$(abspath $(VENV))/bin/python node --test

$(CLIENTS)/$(MODULES): $(CLIENTS)/react/with-18/package.json
%/$(MODULES): %/package.json %/package-lock.json
	@node -e 'const [major, minor] = process.versions.node.split(".").map(Number); if (major < 20 || (major === 20 && minor < 19)) { console.error("This needs Node.js 20.19 or newer, and this is " + process.version); process.exit(1); }'
	echo "== npm ci in $*"
	cd $*
	npm ci --no-audit --no-fund --loglevel=error
	touch $(MODULES)

$(PAGE): $(BOARD)/$(MODULES) $(BOARD)/index.html $(BOARD)/vite.config.js $(shell find $(BOARD)/src $(BOARD)/shared $(JS)/src $(JS)/react -type f)
	@echo "== building the dashboard"
	cd $(BOARD)
	npm run --silent build -- --logLevel warn

$(VENV)/done: $(CLIENTS)/requirements.txt
	@bash .ci/need python
	echo "== python packages"
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

test-deploy: test-build $(VENV)-deploy/done ## image, compose, Kubernetes, alerts, balancer, systemd unit
	@bash .ci/need redis-test prometheus haproxy nginx buildah compose systemd openssl
	bash .ci/kustomize
	echo "== deployment tests"
	cd tests/deploy
	PATH="$(abspath .cache/bin):$$PATH" SSE_GATEWAY_BIN=$(TARGET)/debug/sse-gateway PYTHONDONTWRITEBYTECODE=1 $(abspath $(VENV))-deploy/bin/python -m pytest

$(VENV)-deploy/done: tests/deploy/requirements.txt
	@bash .ci/need python
	echo "== python packages of the deployment tests"
	rm -rf $(VENV)-deploy
	python3 -m venv $(VENV)-deploy
	$(VENV)-deploy/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

fmt: ## formats the code
	cargo fmt --all

lint: ## checks format and lints, warnings denied
	@bash .ci/need cc
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# The licences, bans and sources are held against deny.toml in test-rust, too (tests/supply.rs); this adds the advisories. Apart from
# `make test`, since cargo-deny takes minutes to build and the advisories come over the network.
deny: ## licences, bans, sources and advisories of all dependencies (builds cargo-deny once: minutes)
	@bash .ci/need cc
	PATH=$(abspath .cache/cargo-deny/bin):$$PATH
	command -v cargo-deny >/dev/null || cargo install cargo-deny --locked --root .cache/cargo-deny
	cargo-deny --locked check $(ARGS)

sbom: ## what is in a release, as CycloneDX: target/sbom.cdx.json
	@bash .ci/need python
	mkdir -p $(TARGET)
	.ci/sbom > $(TARGET)/sbom.cdx.json
	echo "$(TARGET)/sbom.cdx.json"

clean: ## removes all that was built or downloaded here
	cargo clean
	rm -rf .cache $(CLIENTS)/node_modules $(CLIENTS)/react/with-18/node_modules $(JS)/node_modules $(JS)/types $(BOARD)/node_modules $(BOARD)/dist
