# Everything a contributor types. `make help` lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The suites that every fabric and every cold tier must pass.
FEATURES := tranship-transport/conformance,tranship-cache/conformance

.PHONY: help demo test unit test-python test-engines test-engines-quick test-s3 loom lint audit deny fmt doc ffi nixl header bindings bench bench-post bench-ofi fuzz fuzz-check fuzz-seeds test-asan test-tsan test-netns test-rdma test-rdma-faults soak soak-nvme mutants peers sample clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: ## build a release and run the demonstration
	$(CARGO) build --release -p tranship
	$(TARGET)/release/tranship demo

test: lint unit test-python test-engines-quick loom doc audit ## everything that must pass before a change is merged

unit: ## unit, integration and documentation tests
	scripts/s3-servers moto
	scripts/rdma-libs
	$(CARGO) test --workspace --features $(FEATURES)

test-python: ## install the Python package into a fresh environment and test it
	scripts/test-python

test-engines: ## real engines on the CPU with their adapters (installs 8 GB into ~/.cache/tranship)
	tests/engines/run

test-engines-quick: ## vLLM with the connector, one test (installs 6 GB into ~/.cache/tranship)
	tests/engines/run quick vllm

test-s3: ## the object tier against s3s-fs and Garage, which are built when they are missing
	scripts/s3-servers moto s3s-fs garage
	TRANSHIP_S3=moto,s3s-fs,garage $(CARGO) test -p tranship-tests \
		--test object_s3 --test object_faults --test object_secrets

# Loom replaces the atomics of every crate that is compiled with its flag, so these models have a
# target directory of their own and nothing else is built there.
loom: ## model checks of the lock-free parts
	@if grep -rqs 'cfg(loom)' transport/tests transport/src cache/tests cache/src; then \
		echo 'loom models of transport'; \
		RUSTFLAGS='--cfg loom' LOOM_MAX_PREEMPTIONS=3 CARGO_TARGET_DIR='$(TARGET)/loom' \
			$(CARGO) test --release -p tranship-transport loom; \
	else \
		echo 'skipped: there are no loom models'; \
	fi

lint: ## formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets --features $(FEATURES),tranship-transport/fuzzing -- -D warnings

audit: ## licences, banned crates and sources
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --log-level error check licenses bans sources; \
	else \
		echo 'skipped: cargo-deny is not installed (make deny installs it)'; \
	fi

deny: ## install cargo-deny, a few minutes
	$(CARGO) install cargo-deny --locked

fmt: ## format the code
	$(CARGO) fmt --all

doc: ## build the API documentation, warnings are errors
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --features $(FEATURES)

ffi: ## build a release of libtranship.so, beside the binary
	$(CARGO) build --release -p tranship -p tranship-ffi
	scripts/link-ffi $(TARGET)/release/libtranship.a $(TARGET)/release

nixl: ## build NIXL's backend into target/nixl, if it fits the NIXL that PYTHON (python3) has
	ffi/nixl/build $(TARGET)/nixl $(or $(PYTHON),python3)

header: ## make ffi/include/tranship.h again
	TRANSHIP_WRITE_HEADER=1 $(CARGO) test -p tranship-ffi --test header

bindings: ## make the bindings of libibverbs and libfabric again, from this machine's headers
	scripts/bindings

bench: ## measure transport, cache and its tiers on this machine, JSON lines
	$(CARGO) build --release -p tranship -p tranship-ffi
	$(TARGET)/release/tranship bench transport --json
	$(TARGET)/release/tranship bench cache --json
	$(TARGET)/release/tranship bench cache --tiers dram,nvme,object --json
	$(TARGET)/release/tranship bench nvme --json
	scripts/link-ffi $(TARGET)/release/libtranship.a $(TARGET)/release
	$(TARGET)/release/tranship bench ffi --json
	$(TARGET)/release/tranship bench object --json
	PATH="$(abspath $(TARGET))/tools/bin:$$PATH" $(TARGET)/release/tranship bench object --json

bench-post: ## measure what a post costs: the engine's part, the rails', and over libfabric's shm
	$(CARGO) bench -p tranship-benches --features conformance --bench post

bench-ofi: ## measure the fabric ofi beside plain libfabric, needs libfabric's headers
	$(CARGO) build --release -p tranship
	CARGO_TARGET_DIR='$(TARGET)' benches/ofi/run

fuzz: ## fuzz every decoder for SECONDS (600) each, see docs/testing.md
	scripts/fuzz $(or $(SECONDS),600)

fuzz-check: ## build every fuzz target and run it for a few seconds
	scripts/fuzz 5

fuzz-seeds: ## write the seeds of the fuzz targets again
	CARGO_TARGET_DIR='$(TARGET)/fuzz' $(CARGO) +nightly run --manifest-path fuzz/Cargo.toml --example seeds

test-asan: ## tests of transport and cache under the address sanitizer
	scripts/sanitize address

test-tsan: ## the same under the thread sanitizer
	scripts/sanitize thread

test-netns: ## two hosts as network namespaces with the cable cut and healed, as root
	$(CARGO) build -p tranship
	TRANSHIP_BINARY='$(abspath $(TARGET))/debug/tranship' \
		$(CARGO) test -p tranship-tests --test netns --test netns_daemon -- --ignored --test-threads 1

test-rdma: ## real libibverbs over Soft-RoCE in an emulated guest, as root the first time
	tests/rdma/run boot tcp verbs

test-rdma-faults: ## the same with links cut, packets lost, bad input and the daemon, and two guests with the cable pulled
	tests/rdma/run faults faults_verbs refused daemon
	tests/rdma/pair cable hosts

# Optimised, with the assertions of a debug build, and in a directory of their own.
soak: ## run SCHEDULES (1000000) seeded fault schedules on the simulated network, the first of them FROM (0)
	TRANSHIP_SCHEDULES=$(or $(SCHEDULES),1000000) TRANSHIP_SCHEDULES_FROM=$(or $(FROM),0) \
		CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
		CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR='$(TARGET)/soak' \
		$(CARGO) test --release -p tranship-transport --test schedules every_schedule_holds

soak-nvme: ## run SCHEDULES (100000) seeded bad days of the NVMe log on a simulated disk, the first of them FROM (0)
	TRANSHIP_NVME_SCHEDULES=$(or $(SCHEDULES),100000) TRANSHIP_NVME_FROM=$(or $(FROM),0) \
		CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
		CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR='$(TARGET)/soak' \
		$(CARGO) test --release -p tranship-cache --features conformance --test nvme every_schedule_holds

# Defects that are compiled in and switched on one by one; a directory of their own keeps them out of
# everything else.
mutants: ## break the transport and the NVMe log on purpose, rule by rule, and show which test notices
	CARGO_TARGET_DIR='$(TARGET)/mutants' $(CARGO) test -p tranship-transport \
		--features conformance,sabotage --test schedules --test conformance_sim every_defect
	CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
		CARGO_PROFILE_RELEASE_LTO=off CARGO_TARGET_DIR='$(TARGET)/mutants' \
		$(CARGO) test --release -p tranship-cache --features conformance,sabotage --test nvme every_defect

peers: ## measure beside NIXL, Mooncake and Redis, see docs/peers.md
	benches/peers/run

sample: ## make samples/conversation.jsonl again
	scripts/sample

clean: ## remove what was built
	$(CARGO) clean
