# Start with `make demo`; `make test` runs every test. Both install missing Debian packages.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.ONESHELL:
.NOTPARALLEL:
.PHONY: help demo dashboard next screenshots animation build optimised bench bench-quick \
  bench-code instructions fuzz test test-build test-rust test-http2 test-upgrade test-others test-js \
  test-clients test-servers test-deploy test-release test-kubernetes test-api test-busy \
  test-matrix test-sources test-outbox faults soak fmt lint deny sbom release release-empty \
  release-gateway release-libraries release-sums docs reference chart clean

TARGET  := $(abspath $(or $(CARGO_TARGET_DIR),target))
CLIENTS := tests/clients
JS      := clients/js
BOARD   := examples/dashboard
RUST    := servers/rust/Cargo.toml
# Written by `npm ci`.
MODULES := node_modules/.package-lock.json
PAGE    := $(BOARD)/dist/index.html
NEXT    := examples/next
SITE    := $(NEXT)/.next/BUILD_ID
VENV    := .cache/venv
PIP     := python -m pip install --quiet --disable-pip-version-check --requirement
# Each target that skips tests lists them in a file here. `make test` prints these files.
SKIPPED := $(abspath .cache/skipped)
ARGS    ?=
# Always all packages: with other ones, dependencies have other features and are built again.
TESTED  := cargo test --workspace --locked

help: ## list the targets
	@awk -F ' ## ' '
	  /^[a-z0-9-]+:.* ## / { sub(/:.*/, "", $$1); printf "  make %-15s %s\n", $$1, $$2 }
	' $(MAKEFILE_LIST)

demo: ## start a private Redis, the gateway and a demo page (ARGS="--listen 127.0.0.1:8080")
	@bash .ci/need redis cc
	@binary=$(TARGET)/release/sse-gateway
	sources="src clients/js/src Cargo.toml Cargo.lock"
	if [[ ! -x $$binary || -n $$(find $$sources -newer $$binary -print -quit) ]]; then
	  binary=$(TARGET)/debug/sse-gateway
	  [[ -x $$binary ]] || echo "== building the gateway (takes a few minutes, only once)"
	  cargo build --locked -p sse-gateway
	fi
	exec $$binary dev $(ARGS)

# The gateway for targets that do not need an up-to-date build: the newest one, also of `make demo`.
BUILDS  := $(TARGET)/release/sse-gateway $(TARGET)/debug/sse-gateway
NEWEST   = $(shell ls -t $(BUILDS) 2>/dev/null | head -n 1)
GATEWAY  = $(or $(SSE_GATEWAY_BIN),$(NEWEST),$(lastword $(BUILDS)))

dashboard: $(PAGE) ## start the example dashboard and all it needs (ARGS="--port 8088")
	@bash .ci/need redis cc
	[[ -x $(GATEWAY) ]] || cargo build --locked -p sse-gateway
	SSE_GATEWAY_BIN=$(GATEWAY) exec node $(BOARD)/start.js $(ARGS)

next: $(SITE) ## start the example Next.js app and all it needs (ARGS="--port 3000")
	@bash .ci/need redis postgres cc
	[[ -x $(GATEWAY) ]] || cargo build --locked -p sse-gateway
	SSE_GATEWAY_BIN=$(GATEWAY) exec node $(NEXT)/start.mjs $(ARGS)

screenshots: $(PAGE) ## update the dashboard images in docs/images (takes a minute)
	@bash .ci/need redis cc chromium
	[[ -x $(GATEWAY) ]] || cargo build --locked -p sse-gateway
	SSE_GATEWAY_BIN=$(GATEWAY) node $(BOARD)/screenshots.js

animation: $(CLIENTS)/$(MODULES) ## update docs/images/demo.webp, the animated demo page (a minute)
	@bash .ci/need redis-test cc chromium webp
	cargo build --locked -p sse-gateway
	SSE_GATEWAY_BIN=$(TARGET)/debug/sse-gateway node $(CLIENTS)/animation.js docs/images/demo.webp

build: ## build the release binary, without the profile-guided optimisation of a release
	@bash .ci/need cc
	cargo build --release --locked -p sse-gateway

optimised: ## build the binary of a release, with profile-guided optimisation (20 minutes)
	@.ci/optimise

# What `loadtest bench` finds next to it, besides the gateway.
BENCH := loadtest yardstick-actix yardstick-send pushpin-origin

# Fails if events were lost or the CPU time per delivery exceeds the budget. Measures the binary of
# a release. The others are measured as their own releases, the yardsticks as Cargo builds them.
bench: ## benchmark against other servers, update docs/benchmarks.md (40 minutes, quiet machine)
	@bash .ci/need cc redis python nchan pushpin
	cargo build --release --workspace --locked
	binaries=$(TARGET)/bench
	mkdir -p $$binaries
	install -t $$binaries $(addprefix $(TARGET)/release/,$(BENCH))
	install -t $$binaries "$$(.ci/optimise)"
	status=0
	$$binaries/loadtest bench --out docs $(ARGS) || status=$$?
	# Status 1: the gateway missed a requirement. The page was written and needs its plots.
	[[ $$status -le 1 ]] || exit $$status
	[[ -x .cache/bench/bin/python ]] || python3 -m venv .cache/bench
	.cache/bench/bin/$(PIP) loadtest/requirements.txt
	.cache/bench/bin/python loadtest/plot.py docs
	exit $$status

bench-quick: ## short benchmark (minutes), prints a table that is too inaccurate to publish
	@bash .ci/need cc redis nchan pushpin
	cargo build --release --workspace --locked
	out=$$(mktemp -d)
	trap 'rm -rf "$$out"' EXIT
	$(TARGET)/release/loadtest bench --quick --out "$$out"

# Not part of `make test`: figures of a busy machine mean nothing. The lints compile the benches.
bench-code: ## measure encoder, stream state, fan-out, parsers and link (4 minutes; ARGS=a filter)
	@bash .ci/need cc
	cargo bench --locked -p sse-gateway --features fuzzing \
	  --bench core --bench fan_out --bench head --bench wire -- $(ARGS)

# Not part of `make test`: it needs a release build, which takes minutes.
instructions: ## compare instructions per delivery and connect with the budget (1 minute)
	@bash .ci/need cc redis python valgrind
	cargo build --release --locked -p sse-gateway
	python3 tests/instructions/measure.py $(TARGET)/release/sse-gateway $(ARGS)

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
CARGO_FUZZ   := 0.13.2

# Not part of `make test`: sanitizers need a nightly toolchain, which the tests must not download.
fuzz: ## fuzz the parsers, 60 s each (FUZZ_SECONDS=10 FUZZ_TARGETS="http1 live")
	@if ! RUSTUP_AUTO_INSTALL=0 cargo +nightly --version >/dev/null 2>&1; then
	  echo "== fuzzing skipped: no nightly toolchain (rustup toolchain install nightly)"
	  exit 0
	fi
	bash .ci/need cc
	PATH=$(abspath .cache/cargo-fuzz/bin):$$PATH
	command -v cargo-fuzz >/dev/null || \
	  cargo install cargo-fuzz --version $(CARGO_FUZZ) --locked --root .cache/cargo-fuzz
	for target in $(FUZZ_TARGETS); do
	  echo "== fuzzing $$target for $(FUZZ_SECONDS) s"
	  mkdir -p fuzz/corpus/$$target
	  dictionary=()
	  [[ $$target != http1* ]] || dictionary=(-dict=fuzz/http.dict)
	  cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    "$${dictionary[@]}" -max_total_time=$(FUZZ_SECONDS) \
	    -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
	done

test: test-rust test-http2 test-upgrade test-js test-others
test: ## run every test, list skipped ones
	@shopt -s nullglob
	lists=($(SKIPPED)/*)
	if [[ $${#lists[@]} -eq 0 ]]; then
	  echo "== all tests passed, none were skipped"
	else
	  echo "== all other tests passed; these were skipped:"
	  cat "$${lists[@]}"
	fi

# These tests wait for processes most of the time, so two lists of them run at once.
test-others:
	@printf '%s\n' 'test-clients test-servers' test-deploy |
	  xargs -P 2 -I {} sh -c '$(MAKE) --no-print-directory {}'

test-build:
	@bash .ci/need cc
	echo "== building the tests"
	$(TESTED) --no-run

test-rust: test-build ## run the Rust tests with a real Redis and a real Postgres
	@bash .ci/need redis-test postgres pgbouncer python openssl nchan pushpin
	echo "== cargo test"
	rm -f $(SKIPPED)/test-rust
	mkdir -p $(SKIPPED)
	export SSE_SKIPPED=$(SKIPPED)/test-rust
	# Most of the time they wait for processes.
	RUST_TEST_THREADS=$$(($$(nproc) * 2)) $(TESTED)

# The modules of the black-box tests that depend most on timing.
BUSY_MODULES ?= drain:: faults:: front:: gap:: http2_floods:: limits:: modes:: neighbours:: \
  poll:: rates:: resume:: revocations:: sessions:: slow::

# Not part of `make test`, because it takes many minutes.
test-busy: test-build ## run timing-sensitive tests 3 times beside 4 busy processes
	@bash .ci/need redis-test postgres pgbouncer python openssl
	busy=()
	trap 'kill "$${busy[@]}"' EXIT
	for _ in 1 2 3 4; do
	  (while :; do :; done) &
	  busy+=($$!)
	done
	for run in 1 2 3; do
	  echo "== run $$run of 3, beside $${#busy[@]} busy processes"
	  cargo test --locked -p sse-gateway --test gateway -- $(BUSY_MODULES)
	done

SERVERS ?= redis-8 valkey-8 valkey-9

# Not part of `make test`, because it takes 6 minutes for each server. A server that cannot be
# downloaded fails it.
test-matrix: test-build $(CLIENTS)/$(MODULES) $(VENV)/done
test-matrix: ## test with other Redis servers (SERVERS="redis-8 valkey-8 valkey-9" ARGS=a filter)
	@bash .ci/need redis-test postgres pgbouncer python openssl
	failed=()
	for server in $(SERVERS); do
	  if ! program=$$(.ci/server $$server); then
	    failed+=($$server)
	    continue
	  fi
	  export REDIS_SERVER=$$program
	  echo "== gateway and publishers with $$server: $$("$$program" --version)"
	  cargo test --locked -p sse-gateway --test gateway -- $(ARGS) || failed+=($$server)
	  [[ -z "$(ARGS)" ]] || continue
	  SSE_GATEWAY_BIN=$(TARGET)/debug/sse-gateway \
	    SSE_GATEWAY_PYTHON=$(abspath $(VENV))/bin/python \
	    node --test $(CLIENTS)/publishers.test.js || failed+=($$server)
	done
	if [[ $${#failed[@]} -gt 0 ]]; then
	  echo "== failed: $${failed[*]}" >&2
	  exit 1
	fi
	echo "== passed with: $(SERVERS)"

# Not part of `make test`, which runs a short selection of it. On a quiet machine, set the limit of
# the lag: OUTBOX_LAG_P99_MS=50.
test-outbox: ## 10,000 rows of a Postgres outbox despite random kills; the lag after a commit
	@bash .ci/need cc redis-test postgres
	cargo test --release --locked -p sse-gateway --test gateway -- \
	  --ignored --nocapture --test-threads 1 postgres_kills::

FAULTS_MINUTES ?= 20
FAULTS_PAGE    ?= docs/operations/reliability.md

# Not part of `make test`, which runs a short selection of them (tests/faults/runs.rs).
faults: ## inject every fault into every Redis deployment, update docs/operations/reliability.md
	@bash .ci/need redis-test postgres cc
	export FAULTS_MINUTES=$(FAULTS_MINUTES) FAULTS_PAGE=$(abspath $(FAULTS_PAGE))
	cargo test --release --locked -p sse-gateway --test faults -- \
	  --ignored --exact --nocapture runs::every_fault_on_every_deployment

SOAK_MINUTES ?= 60

soak: ## look for leaks during an hour of connections, publishes and faults (SOAK_MINUTES=5)
	@bash .ci/need redis-test postgres cc
	SOAK_MINUTES=$(SOAK_MINUTES) cargo test --release --locked -p sse-gateway --test faults -- \
	  --ignored --exact --nocapture soak::gateways_return_to_their_baseline

# Not part of `make test`, which kills readers three times.
test-sources: ## 10,000 entries of a Redis stream, with random kills of gateways and Redis
	@bash .ci/need redis-test cc
	cargo test --locked -p sse-gateway --test gateway -- --ignored --exact --nocapture \
	  redis_streams::ten_thousand_entries_arrive_once_despite_random_kills

# The last commit with version 1 of the Redis library. It is built from the history, because there
# is no published release.
OLD     := 838dc35
OLD_DIR := .cache/old-$(OLD)

test-upgrade: test-build $(OLD_DIR)/done ## upgrade from an old version and roll back, under load
	@[[ -e $(OLD_DIR)/done ]] || exit 0
	bash .ci/need redis-test
	echo "== upgrade from $(OLD)"
	SSE_GATEWAY_OLD_BIN=$(abspath $(OLD_DIR))/target/debug/sse-gateway \
	  $(TESTED) --test gateway -- --ignored upgrade::

# h2spec has no go.mod: tests/h2spec pins it and its dependencies to versions for Debian 12's Go.
H2SPEC := .cache/bin/h2spec

test-http2: test-build $(H2SPEC) ## run h2spec against the gateway, without and with TLS
	@bash .ci/need redis-test openssl
	echo "== h2spec"
	SSE_GATEWAY_H2SPEC=$(abspath $(H2SPEC)) $(TESTED) --test gateway -- --ignored h2spec::

$(H2SPEC): tests/h2spec/go.mod tests/h2spec/go.sum
	@command -v go >/dev/null || bash .ci/need go
	echo "== building h2spec"
	cd tests/h2spec
	GOFLAGS=-mod=readonly go build -o $(abspath $@) github.com/summerwind/h2spec/cmd/h2spec

# Without the commit, which a shallow clone or a source archive lacks, test-upgrade is skipped.
$(OLD_DIR)/done:
	@rm -f $(SKIPPED)/test-upgrade
	if ! fault=$$(git cat-file -e '$(OLD)^{commit}' 2>&1); then
	  if [[ $$(git rev-parse --is-shallow-repository 2>/dev/null) == false ]]; then
	    echo "commit $(OLD) is missing although the history is complete: $$fault" >&2
	    exit 1
	  fi
	  mkdir -p $(SKIPPED)
	  echo "test-upgrade needs the history (git fetch --unshallow): $$fault" |
	    tee $(SKIPPED)/test-upgrade
	  exit 0
	fi
	bash .ci/need cc
	echo "== building $(OLD), the version to upgrade from"
	rm -rf $(OLD_DIR)
	mkdir -p $(OLD_DIR)/source
	git archive $(OLD) | tar -x -C $(OLD_DIR)/source
	CARGO_TARGET_DIR=$(abspath $(OLD_DIR))/target CARGO_PROFILE_DEV_DEBUG=0 \
	  cargo build --locked --manifest-path $(OLD_DIR)/source/Cargo.toml
	rm -rf $(OLD_DIR)/target/debug/{deps,build,incremental,.fingerprint}
	touch $@

test-js: $(JS)/$(MODULES) ## test the JavaScript client (types, size, units)
	@echo "== JavaScript client"
	cd $(JS)
	npm run --silent check
	node --test tests/

# Uses the debug build of the Rust tests to avoid a second build. A file of tests that hangs ends
# after half an hour.
test-clients: test-build $(CLIENTS)/$(MODULES) $(JS)/$(MODULES) $(PAGE) $(SITE) $(VENV)/done
test-clients: servers/node/dist/index.d.ts
test-clients: ## test with real browsers, clients and publishers
	@bash .ci/need redis-test postgres curl chromium
	echo "== client tests"
	cd $(CLIENTS)
	export SSE_GATEWAY_BIN=$(TARGET)/debug/sse-gateway
	SSE_GATEWAY_PYTHON=$(abspath $(VENV))/bin/python \
	  node --test --test-concurrency=2 --test-timeout=1800000

$(CLIENTS)/$(MODULES): $(CLIENTS)/react/with-18/package.json
%/$(MODULES): %/package.json %/package-lock.json
	@node -e '
	  const [major, minor] = process.versions.node.split(".").map(Number);
	  if (major < 20 || (major === 20 && minor < 19)) {
	    console.error("Node.js 20.19 or later is required (got " + process.version + ")");
	    process.exit(1);
	  }'
	echo "== npm ci in $*"
	cd $*
	npm ci --no-audit --no-fund --loglevel=error
	touch $(MODULES)

$(PAGE): $(BOARD)/$(MODULES) $(BOARD)/index.html $(BOARD)/vite.config.js
$(PAGE): $(shell find $(BOARD)/src $(BOARD)/shared $(JS)/src $(JS)/react -type f)
	@echo "== building the dashboard"
	cd $(BOARD)
	npm run --silent build -- --logLevel warn

# npm copies these packages into the app (.npmrc), with what is generated for their publication.
PACKED := $(JS)/types/src/index.d.ts servers/node/dist/index.d.ts

$(JS)/types/src/index.d.ts: $(JS)/$(MODULES) $(shell find $(JS)/src $(JS)/react -name '*.[jt]s')
	@cd $(JS) && npm run --silent prepack

servers/node/dist/index.d.ts: servers/node/$(MODULES) $(wildcard servers/node/src/*.ts)
	@cd servers/node && npm run --silent prepack

$(NEXT)/$(MODULES): $(shell find $(JS)/src $(JS)/react servers/node/src -name '*.[jt]s') | $(PACKED)

$(SITE): $(NEXT)/$(MODULES) $(NEXT)/next.config.ts $(NEXT)/tsconfig.json
$(SITE): $(shell find $(addprefix $(NEXT)/,app components lib) -type f)
	@echo "== building the Next.js app"
	cd $(NEXT)
	NEXT_TELEMETRY_DISABLED=1 npm run --silent build

$(VENV)/done: $(CLIENTS)/requirements.txt
	@bash .ci/need python
	echo "== Python packages"
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/$(PIP) $<
	touch $@

$(VENV)-servers/done: servers/python/tests/requirements.txt
	@bash .ci/need python
	echo "== Python packages of the server libraries"
	rm -rf $(VENV)-servers
	python3 -m venv $(VENV)-servers
	$(VENV)-servers/bin/$(PIP) $<
	touch $@

# Each library has its own servers (servers/harness/run.js), and two are tested at a time.
test-servers: test-build $(CLIENTS)/$(MODULES) servers/node/$(MODULES) $(VENV)-servers/done
test-servers: ## test the server libraries (Node, Python, Go, PHP, Rust)
	@bash .ci/need redis-test go php composer
	export SSE_GATEWAY_BIN=$(TARGET)/debug/sse-gateway PYTHONDONTWRITEBYTECODE=1
	export SSE_PYTHON=$(abspath $(VENV))-servers/bin/python
	echo "== server libraries"
	for language in python go php rust; do
	  cmp LICENSE servers/$$language/LICENSE
	done
	printf '%s\n' rust node python go php | xargs -P 2 -I {} servers/harness/test {}

# The tests of the image need root and are skipped for other users.
test-deploy: test-build $(VENV)-deploy/done ## test image, compose, k8s, Helm, proxies, systemd
	@bash .ci/need redis-test prometheus haproxy nginx compose systemd openssl git curl wget nft ip ps
	[[ $$(id -u) -ne 0 ]] || bash .ci/need buildah
	for version in 3 4; do bash .ci/helm $$version >/dev/null; done
	echo "== deployment tests"
	rm -f $(SKIPPED)/test-deploy
	export PYTHONDONTWRITEBYTECODE=1
	export SSE_GATEWAY_BIN=$(TARGET)/debug/sse-gateway SSE_SKIPPED=$(SKIPPED)/test-deploy
	cd tests/deploy
	$(abspath $(VENV))-deploy/bin/python -m pytest

$(VENV)-deploy/done: tests/deploy/requirements.txt
	@bash .ci/need python
	echo "== Python packages of the deployment tests"
	rm -rf $(VENV)-deploy
	python3 -m venv $(VENV)-deploy
	$(VENV)-deploy/bin/$(PIP) $<
	touch $@

# Kubernetes takes minutes to build. Set KUBERNETES_DIR to share it between checkouts.
KUBERNETES_DIR ?= .cache/kubernetes
PROGRAMS := tests/kubernetes/programs

# Not part of `make test`, because it takes many minutes and needs root.
test-kubernetes: $(OLD_DIR)/done $(VENV)-deploy/done $(KUBERNETES_DIR)/built
test-kubernetes: ## test with a real Kubernetes of two nodes (as root; ARGS="test_objects.py")
	@bash .ci/need cc openssl git curl etcd redis-test busybox containerd cni iptables ip
	[[ -n "$${SSE_GATEWAY_BIN:-}" ]] || cargo build --release --locked -p sse-gateway
	export SSE_GATEWAY_BIN=$${SSE_GATEWAY_BIN:-$(TARGET)/release/sse-gateway}
	export SSE_GATEWAY_OLD=$(abspath $(OLD_DIR)) SSE_KUBERNETES_DIR=$(abspath $(KUBERNETES_DIR))
	export PYTHONDONTWRITEBYTECODE=1
	echo "== tests with Kubernetes"
	cd tests/kubernetes
	$(abspath $(VENV))-deploy/bin/python -m pytest $(ARGS)

$(KUBERNETES_DIR)/built: $(wildcard $(PROGRAMS)/go.* $(PROGRAMS)/build $(PROGRAMS)/*/main.go)
	@if ! command -v go >/dev/null; then
	  echo "Building Kubernetes requires Go 1.26 or later (https://go.dev/dl); Debian 12 has 1.19" >&2
	  exit 1
	fi
	mkdir -p $(KUBERNETES_DIR)/bin
	$(PROGRAMS)/build $(KUBERNETES_DIR)/bin
	touch $@

# Not part of `make test`: schemathesis generates other requests in each run (ARGS=--seed=<seed>).
test-api: $(VENV)-api/done ## compare the API description with a gateway (schemathesis, a minute)
	@bash .ci/need redis-test cc
	[[ -n "$${SSE_GATEWAY_BIN:-}" ]] || cargo build --locked -p sse-gateway
	echo "== API description"
	export PYTHONDONTWRITEBYTECODE=1
	export SSE_GATEWAY_BIN=$(or $(SSE_GATEWAY_BIN),$(TARGET)/debug/sse-gateway)
	cd tests/api
	API_ARGS="$(ARGS)" $(abspath $(VENV))-api/bin/python -m pytest

$(VENV)-api/done: tests/api/requirements.txt
	@bash .ci/need python
	echo "== Python packages of the API tests"
	rm -rf $(VENV)-api
	python3 -m venv $(VENV)-api
	$(VENV)-api/bin/$(PIP) $<
	touch $@

fmt: ## format the code
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	cargo fmt --manifest-path $(RUST)

lint: ## check formatting and lints
	@bash .ci/need cc
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path $(RUST) --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items -p sse-gateway
	cargo clippy --locked -p sse-gateway --features fuzzing --lib --bench head -- -D warnings
	CARGO_TARGET_DIR=.cache/rust-library cargo clippy --locked --manifest-path $(RUST) \
	  --all-targets --features tokio -- -D warnings

# test-rust (tests/supply.rs) also checks licences, bans and sources; this adds advisories. It is
# not part of `make test`, because building cargo-deny takes minutes and advisories need the
# network.
deny: ## check licences and advisories of the dependencies (builds cargo-deny, takes minutes)
	@bash .ci/need cc
	PATH=$(abspath .cache/cargo-deny/bin):$$PATH
	command -v cargo-deny >/dev/null || cargo install cargo-deny --locked --root .cache/cargo-deny
	cargo-deny --locked check $(ARGS)

sbom: ## write the CycloneDX SBOM of the release build to target/sbom.cdx.json
	@bash .ci/need python
	mkdir -p $(TARGET)
	.ci/sbom > $(TARGET)/sbom.cdx.json
	echo "$(TARGET)/sbom.cdx.json"

# Targets to build for a release; empty: those that this machine can build.
RELEASE_TARGETS ?=
DIST            := $(TARGET)/dist

release: release-empty release-gateway release-libraries release-sums
release: ## build all files of a release into target/dist (RELEASE_TARGETS="..")
	@ls -l $(DIST)

release-empty:
	@rm -rf $(DIST)

release-gateway:
	@bash .ci/need cc git python
	RELEASE_DIR=$(DIST) .ci/release gateway $(RELEASE_TARGETS)

release-libraries:
	@bash .ci/need git python composer
	RELEASE_DIR=$(DIST) .ci/release libraries

release-sums:
	@RELEASE_DIR=$(DIST) .ci/release sums

# Not part of `make test`, because it needs a release build, and builds another one with
# `cargo install`.
test-release: $(VENV)-deploy/done $(if $(wildcard $(DIST)/SHA256SUMS),,release)
test-release: ## install and start all files of `make release` (needs root)
	@bash .ci/need redis-test cc git go php composer buildah debootstrap nspawn rpm
	.ci/nfpm
	export RELEASE_DIR=$(DIST) CARGO_TARGET_DIR=$(TARGET) PYTHONDONTWRITEBYTECODE=1
	cd tests/release
	$(abspath $(VENV))-deploy/bin/python -m pytest $(ARGS)

MDBOOK := 0.4.52

# Not part of `make test`, because building mdbook takes minutes. The pages are plain Markdown.
docs: ## build the book into book/ (builds mdbook once, takes minutes)
	@bash .ci/need cc python
	PATH=$(abspath .cache/mdbook/bin):$$PATH
	command -v mdbook >/dev/null || \
	  cargo install mdbook --version $(MDBOOK) --locked --root .cache/mdbook
	mdbook build
	.ci/book-links book
	# llms.txt links to the Markdown of the pages.
	cd docs
	find . -name '*.md' -exec cp --parents -t $(abspath book) {} +
	echo "book/index.html"

reference: ## write the reference pages of the book from the code
	@bash .ci/need cc
	UPDATE_REFERENCE=1 cargo test --locked -p sse-gateway --test docs reference::

chart: $(VENV)-deploy/done ## write the generated files of the Helm chart
	@$(VENV)-deploy/bin/python .ci/chart

clean: ## remove everything that was built or downloaded
	cargo clean
	rm -rf fuzz/target fuzz/corpus fuzz/artifacts
	rm -rf .cache book $(CLIENTS)/node_modules $(CLIENTS)/react/with-18/node_modules
	rm -rf servers/node/node_modules servers/node/dist
	rm -rf $(JS)/node_modules $(JS)/types $(JS)/dist $(BOARD)/node_modules $(BOARD)/dist
	rm -rf $(NEXT)/node_modules $(NEXT)/.next
