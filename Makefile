# What a contributor runs. Run it as yourself: what needs root asks for it through sudo.

.DEFAULT_GOAL := help
SHELL := bash
# rustup's cargo before an older one of the system.
export PATH := $(HOME)/.cargo/bin:$(PATH)

export CARGO_TARGET_DIR ?= $(CURDIR)/target
export SOFTNET_BIN ?= $(CARGO_TARGET_DIR)/release/softnet
AS_ROOT := bash tests/setup/as-root.sh env PATH="$(PATH)" SOFTNET_BIN="$(SOFTNET_BIN)" CI="$(CI)"
# Where there is unsafe code, and what stands on it directly.
UNSAFE_TESTS := sys:: batch:: endpoint:: stop::
UNDER_VALGRIND := --config 'target."cfg(all())".runner = "bash tests/setup/under-valgrind.sh"'

.PHONY: help
help: ## This list
	@echo "softnet: targets"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: release ## A real VM behind softnet: lease, ping, iperf3, a spoof dropped (2 min)
	@$(AS_ROOT) bash tests/demo.sh

.PHONY: check
check: setup-rust ## Does it compile?
	cargo check --locked --all-targets

.PHONY: lint
lint: setup-rust ## Format, clippy and documentation; warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features vmnet-sim -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

.PHONY: test
test: unit e2e ## Every test: cargo's, then end to end

.PHONY: unit
unit: setup-rust ## cargo's tests only; as root they include those that need it
	@bash tests/setup/dnsmasq.sh
	@bash tests/setup/rights.sh
	cargo test --locked
	cargo test --locked --benches
	cargo test --locked --features vmnet-sim --lib --test vmnet --test vmnet_leaks --test vmnet_bench --test mac --test bench

.PHONY: e2e
e2e: release ## Tests in network namespaces, with a stand-in VM and a QEMU guest (root)
	$(AS_ROOT) bash tests/e2e/run.sh

.PHONY: clients
clients: release ## Five real DHCP clients, two servers, and a boot ROM through softnet (root, 3 min)
	@bash tests/setup/clients.sh
	$(AS_ROOT) bash tests/e2e/run.sh -m clients test_clients.py

.PHONY: macos
macos: setup-macos ## Binaries for Macs, from Debian: dist/ (the first run takes ten minutes)
	bash tests/macos/dist.sh

.PHONY: macos-check
macos-check: setup-macos ## The same, with all that can be checked about them without a Mac
	bash tests/macos/check.sh

.PHONY: verify
verify: loom valgrind asan ## What the compiler does not see: threads in every order, memory errors

.PHONY: loom
loom: setup-rust ## Models of what threads share, in every order of their steps
	CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)/loom" RUSTFLAGS="--cfg loom" cargo test --locked --release --lib loom

.PHONY: valgrind
valgrind: setup-rust ## The code for macOS, as far as it runs on Linux, and what has unsafe code, under valgrind
	@bash tests/setup/valgrind.sh
	cargo test --locked --features vmnet-sim --test vmnet_leaks $(UNDER_VALGRIND)
	cargo test --locked --lib $(UNDER_VALGRIND) -- $(UNSAFE_TESTS)

.PHONY: asan
asan: setup-rust ## The same with AddressSanitizer, if the toolchain has its runtime
	bash tests/setup/asan.sh $(UNSAFE_TESTS)

.PHONY: miri
miri: ## wire, filter and batch under Miri; needs: rustup +nightly component add miri
	CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)/miri" cargo +nightly miri test --locked --lib -- wire:: filter:: batch::

.PHONY: fuzz
fuzz: setup-rust ## Fuzzes large segments at TAPs (root) and the filter, 60 s a target; needs: cargo install cargo-fuzz
	OFFLOAD_FUZZ_SECONDS=$(or $(SECONDS_EACH),60) cargo test --locked --test offload fuzz::
	bash tests/fuzz/run.sh $(or $(SECONDS_EACH),60)

.PHONY: oracle
oracle: setup-rust ## The filter against the naive one of the tests, millions of frames
	ORACLE_CASES=$(or $(CASES),250000) cargo test --locked --test oracle -- --nocapture

.PHONY: coverage
coverage: setup-rust ## What tests reach of wire, filter and the code for macOS; needs llvm-cov, llvm-profdata
	bash tests/setup/coverage.sh
	python3 -B tests/macos/coverage.py

.PHONY: bench
bench: release ## What softnet costs beside a bare loop, without root or a VM (30 s)
	"$(SOFTNET_BIN)" bench

.PHONY: measure
measure: release ## The same at a TAP, as root: CPU, latency, wakes and memory (1 min)
	$(AS_ROOT) "$(SOFTNET_BIN)" bench --tap bench0 --subject auto,always --rounds 21 \
		--scenario outbound/64,outbound/1514,inbound/64,inbound/1514,load/outbound/1k,load/inbound/1k

.PHONY: perf
perf: setup-rust ## This tree against the merge base, in the same rounds (5 min)
	bash perf/ab.sh

.PHONY: perf-check
perf-check: setup-perf ## The gate: instructions, allocations, writes, wakes, memory, CPU ratio (3 min)
	python3 -B perf/check.py
	python3 -B perf/check.py --self-check

.PHONY: deny
deny: ## Licences and sources of the dependencies; needs: cargo install cargo-deny
	cargo deny --config .deny.toml check bans licenses sources

.PHONY: release
release: setup-rust
	cargo build --locked --release --bin softnet

.PHONY: setup-rust
setup-rust:
	@bash tests/setup/rust.sh

.PHONY: setup-perf
setup-perf: setup-rust
	@bash perf/setup.sh

.PHONY: setup-macos
setup-macos:
	@bash tests/setup/macos.sh
