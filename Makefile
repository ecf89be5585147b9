# Two commands do everything on a fresh machine: `make demo` and `make test`.
# They need a Rust toolchain (rust-toolchain.toml says which), Node 20.19 or newer, and Python 3 only if
# Node is too old. Chromium and Debian's Prometheus programs are needed by the tests alone.

SHELL := /bin/bash
WEB := dashboards/web
LISTEN ?= 127.0.0.1:9090
UI_SOURCES := $(shell find $(WEB)/src $(WEB)/public -type f 2>/dev/null) $(WEB)/index.html $(WEB)/package-lock.json $(WEB)/vite.config.ts
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1

.PHONY: demo build ui test test-rust test-web e2e lint fmt bench bench-metrics bench-logs bench-replay chaos-metrics peers differential fuzz conformance clients shippers clean chaos-logs chaos-queries chaos-tail bench-tail conformance-exposition bench-exposition conformance-alerting

demo: build
	$(CARGO_TARGET)/binnacle demo --listen $(LISTEN)

CARGO_TARGET := $(or $(CARGO_TARGET_DIR),target)/debug

build: ui
	cargo build --workspace --locked

ui: $(WEB)/dist/index.html

$(WEB)/node_modules/.installed: $(WEB)/package-lock.json
	cd $(WEB) && npm ci --no-audit --no-fund
	touch $@

$(WEB)/dist/index.html: $(WEB)/node_modules/.installed $(UI_SOURCES)
	cd $(WEB) && npm run build

test: lint test-rust test-web

# Everything is built with one set of features: `-p` would build the dependencies once more.
test-rust: ui
	cargo test --workspace --locked

# The tests of the binary have built it; a build of its own would have other features of dependencies.
test-web: ui
	@test -x $(CARGO_TARGET)/binnacle || $(MAKE) build
	cd $(WEB) && npm run check
	cd $(WEB) && BINNACLE_BIN=$(abspath $(CARGO_TARGET))/binnacle npm run e2e

e2e: test-web

lint: ui
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	else echo "cargo-deny is not installed: bans, licences and sources are not checked"; fi

fmt:
	cargo fmt --all

bench: ui
	cargo bench --workspace --locked --bench exposition --bench load --bench wal

# MB/s of pages, and the CPU of one scrape of a hundred thousand known series.
bench-exposition: ui
	cargo bench --workspace --locked --bench exposition --bench scrape

# Beside Prometheus and VictoriaMetrics on the same data, some 15 minutes. The load generator lies outside of this
# repository; ARGS="--only 100k --servers binnacle,victoriametrics" runs a part.
BENCH ?= ../shared/bench

bench-metrics: ui
	cargo build --profile bench --bin binnacle --locked
	python3 cmd/benches/peers/metrics.py --bench $(BENCH) --binnacle $(or $(CARGO_TARGET_DIR),target)/release/binnacle $(ARGS)

# Ten million log lines through two doors, and queries in LogQL and Lucene's syntax; a part of them through Elasticsearch's
# _bulk; how fresh a search is; free text. Some 25 minutes; ARGS="--parts fresh,text" runs a part.
bench-logs: ui
	cargo build --profile bench --bin binnacle --locked
	python3 cmd/benches/peers/logs.py --bench $(BENCH) --binnacle $(or $(CARGO_TARGET_DIR),target)/release/binnacle $(ARGS)

# What the collector needs for each gigabyte of files, to a server and to a sink that takes everything at once; on the lines
# of bench-logs.
bench-tail: ui
	cargo build --profile bench --bin binnacle --locked
	python3 cmd/benches/peers/tail.py --bench $(BENCH) --binnacle $(or $(CARGO_TARGET_DIR),target)/release/binnacle $(ARGS)

# How long a start takes after two hours at 50,000 samples a second, some ten minutes; BINNACLE_RATE is another rate.
bench-replay:
	cargo bench --workspace --locked --bench replay

# Prometheus 3 and VictoriaMetrics of Debian unstable, unpacked into the cache folder.
peers:
	python3 cmd/benches/peers/fetch.py

# Needs root for the disk whose power is cut; some 20 minutes. ARGS="--kills 20 --cuts 0 --flips 0" runs a part.
chaos-metrics: build
	python3 cmd/tests/chaos/chaos.py --of metrics --binnacle $(CARGO_TARGET)/binnacle $(ARGS)

# The same with lines of logs, by a collector's door and by Loki's; some 40 minutes. Where Debian's libfaketime is
# installed, days go by for the server, so that partitions are closed.
chaos-logs: build
	python3 cmd/tests/chaos/chaos.py --of logs --binnacle $(CARGO_TARGET)/binnacle $(ARGS)

# Files of containers as on a node, written, rotated, compressed and deleted, while the collector and the server are killed,
# are away, or have 10,000 of them; some 40 minutes. Needs root for a control group. ARGS="--killed --seconds 30" runs a part.
chaos-tail: build
	python3 cmd/tests/chaos/tail.py --binnacle $(CARGO_TARGET)/binnacle $(ARGS)

# A hundred questions that no server can answer, over ten million lines and 200,000 series, beside a small one; some five
# minutes. The load generator lies outside of this repository.
chaos-queries: ui
	cargo build --profile bench --bin binnacle --locked
	python3 cmd/tests/chaos/queries.py --bench $(BENCH) --binnacle $(or $(CARGO_TARGET_DIR),target)/release/binnacle $(ARGS)

# Every real expression and 2,000 made ones, to Binnacle and to Prometheus 3; BINNACLE_SEED repeats a run.
differential: ui peers
	BINNACLE_PROMETHEUS=$(HOME)/.cache/binnacle/peers/prometheus/usr/bin/prometheus \
		cargo test --workspace --locked --test it -- differential --nocapture

# Prometheus's own tests of PromQL, as a black box; docs/conformance.md says what is known to fail. They lie
# outside of this repository.
CONFORMANCE ?= ../shared/conformance/promql
SERVE = $(abspath $(CARGO_TARGET))/binnacle serve --listen 127.0.0.1:{port} --data {data} \
	--config $(abspath cmd/tests/conformance.yml)
FLAGS = --enable-feature=promql-experimental-functions,promql-duration-expr,promql-extended-range-selectors,promql-binop-fill-modifiers
NEED_FLAGS = experimental_function,duration_expr,extended_range,fill_modifier
RUN_CONFORMANCE = python3 $(CONFORMANCE)/run.py --ready /-/ready --kill --jobs 2 --epoch recent -vv --files $(CONFORMANCE)/testdata

conformance: build
	@test -f $(CONFORMANCE)/run.py || { echo "the tests are not at $(CONFORMANCE): set CONFORMANCE"; exit 1; }
	$(RUN_CONFORMANCE)/core --skip $(NEED_FLAGS) --launch "$(SERVE)"
	$(RUN_CONFORMANCE)/core --launch "$(SERVE) $(FLAGS)"
	$(RUN_CONFORMANCE)/native --launch "$(SERVE) $(FLAGS)"
	$(RUN_CONFORMANCE)/experimental --launch "$(SERVE) $(FLAGS)"

# Real pages of targets, scraped as Prometheus 3.5.3 scrapes them. They lie outside of this repository.
EXPOSITION ?= ../shared/conformance/exposition
SCRAPE = $(abspath $(CARGO_TARGET))/binnacle serve --listen 127.0.0.1:{port} --data {data} --config {config}

conformance-exposition: build
	@test -f $(EXPOSITION)/run.py || { echo "the tests are not at $(EXPOSITION): set EXPOSITION"; exit 1; }
	python3 $(EXPOSITION)/run.py -v --launch "$(SCRAPE)"

# Alertmanager's behaviour, as a black box, and amtool as a client. Templates, routes and configurations that amtool
# judged are unit tests of alerting.
ALERTING ?= ../shared/conformance/alerting
AMTOOL_LISTEN ?= 127.0.0.1:19394
TELL = $(abspath $(CARGO_TARGET))/binnacle serve --data {data} --listen 127.0.0.1:{port} --alertmanager-config {config}

conformance-alerting: build
	@test -f $(ALERTING)/run.py || { echo "the scenarios are not at $(ALERTING): set ALERTING"; exit 1; }
	python3 $(ALERTING)/run.py --launch "$(TELL)"
	cargo test -p binnacle-alerting --lib -- --nocapture amtool promtool taken_or_refused real_projects | grep -E "^(templates|annotation|rule|routing|configurations|test )"
	@data=$$(mktemp -d); $(CARGO_TARGET)/binnacle serve --listen $(AMTOOL_LISTEN) --data $$data \
		--alertmanager-config $(CLIENTS)/alertmanager.yml >$$data.log 2>&1 & \
	server=$$!; trap 'kill $$server; wait $$server; rm -rf $$data $$data.log' EXIT; \
	for _ in $$(seq 100); do curl -sf http://$(AMTOOL_LISTEN)/-/ready >/dev/null && break; sleep 0.1; done; \
	$(CLIENTS)/check.sh --am-url http://$(AMTOOL_LISTEN)

# promtool as a client. The checks lie outside of this repository.
CLIENTS ?= ../shared/conformance/clients
CLIENTS_LISTEN ?= 127.0.0.1:19393

clients: build
	@test -f $(CLIENTS)/check.sh || { echo "the checks are not at $(CLIENTS): set CLIENTS"; exit 1; }
	@data=$$(mktemp -d); $(CARGO_TARGET)/binnacle serve --listen $(CLIENTS_LISTEN) --data $$data >$$data.log 2>&1 & \
	server=$$!; trap 'kill $$server; wait $$server; rm -rf $$data $$data.log' EXIT; \
	for _ in $$(seq 100); do curl -sf http://$(CLIENTS_LISTEN)/-/ready >/dev/null && break; sleep 0.1; done; \
	$(CLIENTS)/check.sh --prom-url http://$(CLIENTS_LISTEN)

# Clients in Python, pinned, that cmd/tests/it/shippers.rs sends with, and moto, the S3 of cmd/src/bucket/tests.rs; without
# them both say that they are skipped.
SHIPPERS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/binnacle/shippers

shippers: $(SHIPPERS)/.installed

$(SHIPPERS)/.installed: cmd/tests/shippers/requirements.txt
	python3 -m venv $(SHIPPERS)
	$(SHIPPERS)/bin/pip install --quiet --requirement $<
	touch $@

# Needs nightly and cargo-fuzz; a minute for each target.
fuzz:
	cd store && cargo +nightly fuzz run wal_replay -- -max_total_time=60
	cd store && cargo +nightly fuzz run block -- -max_total_time=60
	cd store && cargo +nightly fuzz run log_page -- -max_total_time=60
	cd query && cargo +nightly fuzz run promql -- -max_total_time=60
	cd query && cargo +nightly fuzz run log_query -- -max_total_time=60
	cd query && cargo +nightly fuzz run logql -- -max_total_time=60
	cd collector && cargo +nightly fuzz run exposition -- -max_total_time=60
	cd collector && cargo +nightly fuzz run openmetrics -- -max_total_time=60
	cd collector && cargo +nightly fuzz run protobuf -- -max_total_time=60
	cd collector && cargo +nightly fuzz run remote_write -- -max_total_time=60
	cd collector && cargo +nightly fuzz run remote_write_v2 -- -max_total_time=60
	cd collector && cargo +nightly fuzz run otlp -- -max_total_time=60
	cd collector && cargo +nightly fuzz run otlp_logs -- -max_total_time=60
	cd collector && cargo +nightly fuzz run bulk -- -max_total_time=60
	cd collector && cargo +nightly fuzz run ndjson -- -max_total_time=60
	cd collector && cargo +nightly fuzz run syslog -- -max_total_time=60
	cd collector && cargo +nightly fuzz run loki_push -- -max_total_time=60
	cd collector && cargo +nightly fuzz run cri_line -- -max_total_time=60
	cd collector && cargo +nightly fuzz run docker_json -- -max_total_time=60
	cd collector && cargo +nightly fuzz run gz_tail -- -max_total_time=60
	cd collector && cargo +nightly fuzz run journal -- -max_total_time=60

clean:
	cargo clean
	rm -rf $(WEB)/dist $(WEB)/node_modules
