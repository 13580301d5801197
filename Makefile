# The three commands are `make test`, `make soak` and `make bench`; `make demo` shows it all. `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# auto: the tests make clusters of their own; current: they use the one that KUBECONFIG names; none: no cluster tests.
CLUSTER ?= auto
IMAGE   ?= localhost/gomodcache:dev
# dev is what the tests use; `make image PROFILE=release` makes the one to ship.
PROFILE ?= dev

export CLUSTER IMAGE PROFILE
chart_files := charts/gomodcache-operator/files

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: demo demo-down
demo: ## a real one-node cluster, a cache from a manifest, and a pod that downloads modules through it, twice
	deploy/demo/demo up
demo-down: ## remove everything that `make demo` made
	deploy/demo/demo down

.PHONY: test soak bench
test: ## everything CI runs: lints, unit tests, the proxy with the real go client, the operator on real clusters
	tests/run
soak: ## the long forms: kill rounds, many caches, ten minutes of quiet
	tests/soak
bench: ## comparisons beside peers
	benches/run

.PHONY: fmt lint deny advisories crd chart image
fmt: ## format the code
	cargo fmt
lint: ## clippy and rustfmt, warnings are errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
deny: ## licences, sources and banned crates of the dependency tree
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --log-level warn check bans licenses sources
advisories: ## known vulnerabilities (needs the advisory database)
	cargo deny check advisories
crd: ## write crds/ from the Rust types, and the chart's copy
	cargo run --locked -q -- crd > crds/gomodulecaches.yaml
	$(MAKE) -s chart
chart: ## copy what the Helm chart shares with crds/ and deploy/
	rm -rf $(chart_files) && mkdir -p $(chart_files)/base $(chart_files)/namespace
	cp crds/gomodulecaches.yaml deploy/rules/gomodcache.rules.yaml deploy/dashboards/gomodcache.json $(chart_files)/
	cp $(filter-out %/kustomization.yaml %/namespace.yaml %/operator.yaml,$(wildcard deploy/base/*.yaml)) $(chart_files)/base/
	cp deploy/overlays/namespace/role.yaml $(chart_files)/namespace/
image: ## the image as an OCI archive, without a docker daemon: target/image/gomodcache.tar
	deploy/image/build

.PHONY: cluster-up cluster-down
cluster-up: ## a real one-node cluster in network, mount and process namespaces of its own
	tests/cluster/cluster install --node
	tests/cluster/cluster up --node
cluster-down: ## remove it
	tests/cluster/cluster down
