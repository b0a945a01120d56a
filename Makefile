# What runs without servers needs Go and make, nothing else. integration_tests/README.md lists what the other tests need.

GO            ?= go
GOLANGCI_LINT ?= $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
BINARY        := bin/flagr-server
# What the compiler optimizes for: a CPU profile of the server under evaluations.
PROFILE       := integration_tests/bench/server.pgo
# How often the exactness test of integration_tests repeats its 200,000 evaluations.
ROUNDS        ?= 1

# Modules of their own that other programs import. ./... leaves them out; go.work makes their folders known.
LIBRARIES     := ./pkg/datar/... ./pkg/datar/datarprom/... ./pkg/datar/gormstore/... ./pkg/evallog/... ./pkg/evallog/evallogof/...

# Modules of their own with tests and examples. Each has a go.work of its own, which leaves it out of the one above.
MODULES       := integration_tests/hostserver integration_tests/mysqldialect integration_tests/promrules integration_tests/browser

# Runs a command with database servers in its environment; those that are there already stay as they are.
SERVERS       := $(GO) run ./integration_tests/services/run

# Runs go test and ends with a line that counts passed, failed and skipped tests.
TESTSUM       := $(GO) run ./integration_tests/testsum

# The race detector, without the packages that are SQLite translated to Go: they touch memory of their own only, and
# would take most of the time.
RACE          := -race '-gcflags=modernc.org/...=-race=false'
RACE_PACKAGES ?= ./pkg/... $(LIBRARIES)

.PHONY: help build run test race test-servers test-clickhouse test-chdb test-chdb-part test-clickhouse-cluster streams cross integration browser screenshots lint swagger swagger-check bench bench-answers bench-clickhouse bench-scaling bench-hour bench-overload bench-knee benchstat attack vulncheck profile clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 18

# Both programs are built alike, so that they share compiled packages.
BUILD := CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -pgo=$(abspath $(PROFILE))

build: bin/flagr-check server ## build bin/flagr-server, and bin/flagr-check for flag documents

.PHONY: server bin/flagr-check
server:
	$(BUILD) -o $(BINARY) ./swagger_gen/cmd/flagr-server

bin/flagr-check: server
	$(BUILD) -o bin/flagr-check ./pkg/cmd/flagr-check

run: export HOST ?= localhost
run: export PORT ?= 18000
run: export FLAGR_DB_DBCONNECTION_DEBUG ?= false
run: export FLAGR_RECORDER_ENABLED ?= true
run: export FLAGR_RECORDER_TYPE ?= datar
run: ## start on SQLite with Datar on, and print what to try
	@[ -x $(BINARY) ] || echo "make run: the first build compiles all dependencies, which takes some minutes; it names each package when it is done"
	$(BUILD) $(if $(wildcard $(BINARY)),,-v) -o $(BINARY) ./swagger_gen/cmd/flagr-server
	@exec $(BINARY) --first-steps docs/first-steps.sh

test: ## all tests that need no server
	@$(TESTSUM) $(GO) test -C integration_tests/promrules ./...
	@$(TESTSUM) $(GO) test -timeout 20m ./pkg/... $(LIBRARIES) ./swagger_gen/... ./integration_tests/testsum ./integration_tests/datargolden

race: ## the tests of pkg with the race detector, which needs a C compiler
	@CGO_ENABLED=1 $(TESTSUM) $(GO) test $(RACE) -timeout 40m $(RACE_PACKAGES)

test-servers: ## tests of the stores and of answers on PostgreSQL and MariaDB, which it installs and starts, and on the SQL of MySQL 8
	FLAGR_TEST_REQUIRE_SERVERS=1 $(SERVERS) $(TESTSUM) $(GO) test -count=1 -timeout 40m -parallel 4 ./pkg/store ./pkg/datar/gormstore
	FLAGR_TEST_REQUIRE_SERVERS=1 $(SERVERS) $(TESTSUM) $(GO) test -count=1 -timeout 40m -parallel 4 -run 'EachDatabase|ADefinition' ./pkg/handler ./pkg/insight
	$(TESTSUM) $(GO) test -C integration_tests/mysqldialect -count=1 ./...

streams: export FLAGR_TEST_REQUIRE_SERVERS = 1
streams: export FLAGR_TEST_STREAMS = 1
streams: ## faults of a real Apache Kafka that take too long for every change, of one broker and of three
	integration_tests/brokers/kafka.sh $(TESTSUM) $(GO) test -count=1 -timeout 40m -run Streams -v ./pkg/recorder/kafka
	FLAGR_TEST_KAFKA_NODES=3 integration_tests/brokers/kafka.sh $(TESTSUM) $(GO) test -count=1 -timeout 40m -run Cluster -v ./pkg/recorder/kafka

test-clickhouse: build ## tests with counts in ClickHouse, which it installs and starts: an old version from apt
	FLAGR_TEST_REQUIRE_SERVERS=1 $(SERVERS) -only clickhouse $(TESTSUM) $(GO) test -count=1 -timeout 20m ./pkg/datar/chstore ./integration_tests/services
	FLAGR_TEST_REQUIRE_SERVERS=1 $(SERVERS) -only clickhouse $(TESTSUM) $(GO) test -count=1 -timeout 20m -run OnClickHouse ./pkg/handler
	FLAGR_TEST_REQUIRE_SERVERS=1 $(SERVERS) -only clickhouse,postgres15 $(TESTSUM) $(GO) test -count=1 -timeout 20m -run ClickHouse ./integration_tests -server $(abspath $(BINARY))

test-chdb: ## the same on a current engine of ClickHouse in a Python process, 530 MB to install
	$(SERVERS) -only chdb $(TESTSUM) $(GO) test -count=1 -timeout 40m ./pkg/datar/chstore

# The tests that say most about the SQL of another version, without those that take long on an engine that runs one
# query at a time.
CHDB_PART := ^Test(TooManyParts|ManyStartAtOnce|ClickHouseClockIsWrong|QueryOfTheDocs|PurgeIsExact|RollupsWait|Store)$$/^chdb$$/^(ahead|behind|counts_|a_batch_is_applied|a_receipt_is|a_known_batch|a_check|an_ended|totals_|windows_|last_|large_ids|details_by|details_are|only_some|events_without|unknown_|servers_)

test-chdb-part: ## the part of test-chdb that takes less than a minute
	FLAGR_TEST_REQUIRE_SERVERS= $(SERVERS) -only chdb $(TESTSUM) $(GO) test -count=1 -timeout 10m -run '$(CHDB_PART)' ./pkg/datar/chstore

test-clickhouse-cluster: build ## the same on a cluster of two shards with two replicas each, which it installs and starts: two minutes
	FLAGR_TEST_REQUIRE_SERVERS= integration_tests/services/clickhousecluster/run.sh sh -c "\
		$(TESTSUM) $(GO) test -count=1 -timeout 20m -parallel 4 -run '/^cluster$$' ./pkg/datar/chstore && \
		$(TESTSUM) $(GO) test -count=1 -timeout 20m -run 'ClickHouse(AnswersAlike|Move)' ./integration_tests -server $(abspath $(BINARY))"

cross: ## build the server for other systems and machines, and what needs none of its libraries for all of them
	@for system in linux darwin windows; do for machine in amd64 arm64; do \
		echo "$$system $$machine"; GOOS=$$system GOARCH=$$machine CGO_ENABLED=0 $(GO) build ./pkg/datar/... ./pkg/evallog || exit 1; done; done
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./swagger_gen/cmd/flagr-server
	GOOS=windows GOARCH=amd64 CGO_ENABLED=0 $(GO) build -o /dev/null ./swagger_gen/cmd/flagr-server

integration: build ## black-box tests against the built binary
	$(TESTSUM) $(GO) test -count=1 -timeout 40m -parallel 4 ./integration_tests -server $(abspath $(BINARY)) -rounds $(ROUNDS)

browser: build ## tests of the pages in a real Chromium, if there is one
	$(TESTSUM) $(GO) test -C integration_tests/browser -count=1 -timeout 40m -parallel 4 . -server $(abspath $(BINARY))

screenshots: build ## write pictures of the main pages to docs/images
	mkdir -p docs/images
	cd integration_tests/browser && $(GO) test -count=1 -timeout 10m -run Screenshots . -server $(abspath $(BINARY)) -screenshots $(abspath docs/images)

lint: ## go vet and golangci-lint, also of the other modules
	$(GO) vet ./... $(LIBRARIES)
	$(GOLANGCI_LINT) run ./... $(LIBRARIES)
	@for module in $(MODULES); do \
		echo "lint: $$module"; (cd $$module && $(GO) vet ./... && $(GOLANGCI_LINT) run ./...) || exit 1; done

swagger: ## regenerate swagger_gen/ from swagger.yaml
	$(GO) tool swagger validate swagger.yaml
	rm -rf swagger_gen/models swagger_gen/cmd swagger_gen/restapi/operations
	rm -f swagger_gen/restapi/doc.go swagger_gen/restapi/embedded_spec.go swagger_gen/restapi/server.go
	$(GO) tool swagger generate server -q -t swagger_gen -f swagger.yaml

swagger-check: swagger ## fail if swagger_gen/ is not what swagger.yaml generates
	@git diff --exit-code --stat -- swagger_gen && [ -z "$$(git status --porcelain -- swagger_gen)" ] || \
		{ git status --short -- swagger_gen; echo "swagger_gen/ differs from swagger.yaml: run make swagger and commit"; exit 1; }

bench: build ## what evaluations cost, beside a bare HTTP server, and Go's benchmarks: see docs/benchmarks.md
	$(SERVERS) -only postgres15 sh -c '$(GO) run ./integration_tests/bench -server $(BINARY) -postgres "$$FLAGR_TEST_POSTGRES15"'
	$(GO) test -run '^$$' -bench . -benchmem -cpu 1,2 ./pkg/datar ./pkg/eval ./pkg/evallog ./pkg/fastpath ./pkg/recorder ./pkg/handler ./pkg/ofrep ./pkg/provider ./pkg/metrics
	$(SERVERS) -only postgres15 $(GO) test -run '^$$' -bench 'EngineFlush|StatementMemory|Tenants|RollupMemory' -timeout 30m ./pkg/datar/gormstore -bench.hours 72

bench-answers: ## what answers about 5,076,000 details of 1,000 flags cost, and flushes of them, on SQLite and PostgreSQL 15: half an hour
	$(SERVERS) -only postgres15 $(GO) test -timeout 2h -run '^$$' -bench 'Answers|Details' -benchtime 20x ./pkg/insight ./pkg/datar/gormstore

FLUSHES ?= 10
bench-clickhouse: ## inserts into ClickHouse, and answers about 30 days of which each counter was written FLUSHES times: a quarter of an hour for 60
	FLAGR_BENCH_FLUSHES=$(FLUSHES) $(SERVERS) -only clickhouse $(GO) test -timeout 2h -run '^$$' -bench . -benchtime 10x -v ./pkg/datar/chstore

bench-scaling: ## what a flush costs PostgreSQL, MariaDB and ClickHouse: the constants of docs/scaling.md
	$(GO) test -timeout 1h -run '^$$' -bench Servers -benchtime 10x ./integration_tests/services

WRITERS  ?= 1000
KEYS     ?= 1000
DATABASE ?= clickhouse
bench-hour: ## what an hour of WRITERS servers with KEYS keys and 60 flushes costs DATABASE, as fast as it takes them: 20 minutes
	FLAGR_BENCH_WRITERS=$(WRITERS) FLAGR_BENCH_KEYS=$(KEYS) $(GO) test -timeout 2h -run '^$$' -bench 'Hour/^($(DATABASE))$$' -benchtime 1x -v ./integration_tests/services

bench-overload: ## what a flush costs PostgreSQL and MariaDB while 2 and while 40 servers flush without a pause: two minutes
	$(GO) test -timeout 1h -run '^$$' -bench Overload -benchtime 1x ./integration_tests/services

bench-knee: ## from how many servers on PostgreSQL and MariaDB lag, found with servers in one process: a quarter of an hour
	$(GO) test -timeout 1h -run '^$$' -bench Knee -benchtime 1x -v ./integration_tests/services

# What benchstat compares: BENCH in PACKAGES, at the commit BASE and as the files are now.
BASE          ?= main
PACKAGES      ?= ./pkg/datar ./pkg/eval ./pkg/fastpath
BENCH         ?= .

benchstat: ## compare Go's benchmarks with those of another commit: make benchstat BASE=main PACKAGES=./pkg/datar
	@rm -rf bin/base && mkdir -p bin && git worktree prune && git worktree add -q --detach bin/base $(BASE)
	@trap 'git worktree remove --force bin/base' EXIT; \
		(cd bin/base && $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count 6 $(PACKAGES)) > bin/base.txt && \
		$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count 6 $(PACKAGES) > bin/new.txt && \
		$(GO) run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da bin/base.txt bin/new.txt

attack: build ## requests that are meant to exhaust the server: peak memory, and latency of honest requests beside them
	$(GO) run ./integration_tests/attack/run -server $(BINARY)

# Where vulncheck finds the Go vulnerability database; a file:// URL names a copy of it.
VULNDB        ?= https://vuln.go.dev

vulncheck: ## known vulnerabilities of what the code uses; needs the Go vulnerability database
	@report=$$($(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 -db $(VULNDB) ./... $(LIBRARIES) 2>&1); status=$$?; printf '%s\n' "$$report"; \
	case "$$report" in *"fetching vulnerabilities"*) echo "make vulncheck: nothing was checked, since $(VULNDB) cannot be reached from here." \
		"Run it where it can, or set VULNDB to the file:// URL of a copy" >&2;; esac; exit $$status

profile: build ## renew the profile that the compiler optimizes for, on a machine with nothing else to do
	$(GO) run ./integration_tests/bench -server $(BINARY) -refresh=false -light=false -pages=false -month=false -profile $(PROFILE)

clean: ## remove what was built
	rm -rf bin
