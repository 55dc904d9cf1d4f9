# Ogive: the commands of everyday work. `make` prints them.
#
# `demo`, `test` and `lint` install what is missing first (apt-get on Debian and Ubuntu, as root or
# through sudo); with everything there that costs no noticeable time.

SHELL := /bin/bash
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Arguments of `make demo` and `make bench`; for example: make demo ARGS=--keep
ARGS ?=
# Sleeps of `make stress`.
OGIVE_STRESS ?= 1000000
# Seconds of `make crash` and `make sim`.
SECONDS ?= 60
SECONDS_SIM ?= $(SECONDS)
# How long `make chaos` goes on with fresh seeds, and the first of them.
MINUTES ?=
SEED ?=

.DEFAULT_GOAL := help
.PHONY: help demo build test test-rdma test-rdma-short lint bench bench-copyset stress sim crash chaos \
        mutants mutants-store miri clean \
        unit doctest process-tests release-tests wake-ups fmt-check clippy tidy dependencies tools-demo tools-test

help: ## Prints this
	@echo 'make TARGET [ARGS="..."]'
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | \
	  while IFS='|' read -r name what; do printf '  %-14s %s\n' $$name "$$what"; done

demo: tools-demo ## Starts a cluster here, puts files on a volume, kills a replica, compares
	$(CARGO) build --release --bin ogive $$(.ci/features)
	$(TARGET)/release/ogive demo $(ARGS)

build: ## Builds the release binary, with all paths that this system has
	$(CARGO) build --release --bin ogive $$(.ci/features)

test: ## Installs the tests' tools and runs all tests
	@.ci/jobs tools unit doctest build sim-smoke crash-points crash interop-nbd fs-on-volume cluster chaos command-line

test-rdma: ## Tests over RDMA (soft-RoCE) in a virtual machine; installs what that needs
	@.ci/jobs rdma rdma-more

test-rdma-short: ## test-rdma without the tests of the binding; .ci/run takes this
	@.ci/jobs rdma

lint: ## Format, clippy, tidy tests, dependency checks
	@.ci/jobs lint tidy dependencies

bench: build ## A volume of three replicas beside single copies, in one run
	@bench/volume.sh $(ARGS)

bench-copyset: ## The replication core beside raft-rs and openraft, in one thread; needs protoc
	$(CARGO) run --release -q --manifest-path bench/references/Cargo.toml --target-dir $(TARGET)/references \
	  -- $(ARGS)

stress: ## A million sleeps of a reactor, none of them overslept (OGIVE_STRESS=N for others)
	@.ci/jobs stress

sim: ## Simulated clusters under faults, fresh ones on all cores for SECONDS seconds
	$(CARGO) run --release -q -p ogive-sim --bin ogive-sim -- --seconds $(SECONDS_SIM) $(ARGS)

crash: ## Power cuts and damage, fresh ones for SECONDS seconds, on stores alone
	$(CARGO) run --release -q -p ogive-crash --bin ogive-crash -- --seconds $(SECONDS) $(ARGS)

chaos: ## Real processes under faults for MINUTES minutes, a minute by default; SEED=N replays one
	OGIVE_CHAOS_MINUTES=$(MINUTES) OGIVE_CHAOS_SEED=$(SEED) $(CARGO) test --release -p ogive $$(.ci/features) \
	  --test chaos -- --nocapture

mutants: ## Puts known bugs into copies of the product and says how soon `make sim` notices
	dataplane/sim/tests/mutants/run.sh $(ARGS)

mutants-store: ## Puts known bugs into the store and says how soon `make crash` notices
	dataplane/store/tests/mutants/run.sh $(ARGS)

miri: ## The unsafe parts that Miri can run; needs a nightly toolchain with it
	$(CARGO) +nightly miri test -p ogive-buf

clean: ## Removes what was built
	$(CARGO) clean

# Parts of the above, which .ci/jobs calls by name.

tools-demo:
	@.ci/install demo

tools-test:
	@.ci/install test

unit: ## Unit and property tests of all crates
	.ci/tests unit

doctest: ## Examples in the documentation
	$(CARGO) test $$(.ci/features workspace) --doc -q

process-tests: ## Tests with real processes: crash, interop_nbd, fs_on_volume, cluster
	.ci/tests process

wake-ups:
	OGIVE_STRESS=$(OGIVE_STRESS) $(CARGO) test -q --release -p ogive-reactor --test wake -- \
	  --nocapture --test-threads=1

fmt-check:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy $$(.ci/features workspace) --all-targets -q -- -D warnings

tidy: ## Lengths, links, crate edges, top level
	$(CARGO) test -q -p ogive-hwtest --test tidy

dependencies: ## Licences, sources and versions of dependencies
	$(CARGO) test -q -p ogive-hwtest --test dependencies
