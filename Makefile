# Go, a C compiler (for the race detector), Java 17, Maven and Chromium are all that is needed; the rest is fetched by go and mvn.
# `make help` lists the targets.

GOFUMPT     := bin/gofumpt-v0.12.0
STATICCHECK := bin/staticcheck-v0.8.2
PLUGINS     := bin/protoc-gen-go bin/protoc-gen-connect-go bin/protoc-gen-connect-openapi

# What runs at once: packages, and tests of one package that wait for brokers more than they compute.
TESTFLAGS ?= -race -p 2 -parallel 4 -timeout 20m
PACKAGES  ?= ./...

# How long each fuzz target runs, and where targets are looked for. At the end of that time Go before 1.27 may report its own deadline as a
# failure, without an input (golang/go#75804).
TIME   ?= 30s
FUZZED ?= .

# The chaos harness: every fault there is; the defaults of Tidemark and Kafka; a broker killed in each of its roles.
CHAOS    := -brokers 3 -property broker.session.timeout.ms=4000 -network -views 2 -damage -processors-max 4
DEFAULTS := -kafka-defaults -session 6s -settle
FAILOVER := $(DEFAULTS) -brokers 3 -views 2 -views-within 5s -only "broker killed: a leader" -only "broker killed: group coordinator" \
	-only "broker killed: transaction coordinator" -only "broker killed: controller" -faults 4 -apart 61s -events 100000
COMING   := -only "one more processor" -only "one processor fewer" -only "clean restart" -only "kill -9, started again at once"
TOKENS   := -views 2 -only "kill -9" -only "kill -9, state deleted" -only "kill -9 in a commit" -only "clean restart" -only freeze \
	-only "view: kill -9" -only "view: kill -9, state deleted" -only "view: freeze" -only "view: clean restart"

.DEFAULT_GOAL := help
.PHONY: FORCE bench build chaos chaos-long clean contract failover fuzz generate help hostile kafka lint lost-replies model mutants quick reads sim sim-long stall systemtest takeover test token-reads tools watchers zombies

bench: ## measure against stock Goka, on a real Kafka; ARGS="-quick" for a minute
	go run ./bench $(ARGS)

build: ## build bin/tidemark
	CGO_ENABLED=0 go build -trimpath -o bin/tidemark ./cmd/tidemark

chaos: bin/chaos ## 3 brokers, 1,000,000 events, 90 faults of 29 kinds, views asked all the time; about 8 minutes; ARGS="-seed N …"
	bin/chaos $(CHAOS) -faults 90 -every 3s -events 1000000 $(ARGS)

chaos-long: bin/chaos ## the same with 400 faults and 5,000,000 events, and stock Goka as the control, which must lose count
	bin/chaos $(CHAOS) -faults 400 -every 4s -events 5000000 $(ARGS)
	bin/chaos -subject stock -faults 20; test $$? -eq 1

clean: ## remove what was built and fetched; .tidemark, which holds data, stays
	rm -rf bin .cache

contract: build bin/grpcurl ## schemathesis finds no answer outside the OpenAPI document, grpcurl works by reflection; needs python3; ARGS="--max-examples N"
	internal/contract/check.sh $(ARGS)

failover: bin/chaos ## a broker in each role killed, a minute apart: commit gaps, beside how long Kafka itself names the dead one; 10 minutes
	bin/chaos $(FAILOVER) -within any=30s $(ARGS)
	bin/chaos $(FAILOVER) -within any=15s -property broker.session.timeout.ms=4000 $(ARGS)

fuzz: ## every fuzz target, one after the other, 30 s each, until one fails; TIME=10m, FUZZED=./codecs for some, ARGS for go test
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' $(FUZZED) | sort | while IFS=: read -r file func; do \
		dir=$$(dirname "$$file"); name=$${func#func }; echo "$$dir $$name"; \
		out=$$(go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(TIME) $(ARGS) "$$dir" 2>&1 </dev/null) || \
		case "$$out" in \
			*"Failing input"*) echo "$$out"; echo "$$name failed; its input lies in $$dir/testdata/fuzz/$$name"; exit 1;; \
			*"    context deadline exceeded"*) ;; \
			*) echo "$$out"; echo "$$name failed without an input"; exit 1;; \
		esac; \
		echo "$$out" | grep '^fuzz: elapsed' | tail -n 1; \
	done

generate: $(PLUGINS) ## make what follows from proto/tidemark/v1/view.proto: Go, Connect, OpenAPI
	go run ./internal/protogen

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

hostile: build ## hostile traffic to a view for 10 minutes, beside a client that measures; ARGS="-for 1m"
	go run ./internal/hostile/cmd $(ARGS)

kafka: ## run a real Kafka on 127.0.0.1:9092 until Ctrl-C; ARGS="-port N -dir DIR"
	go run ./internal/kafkatest/kafka $(ARGS)

lint: $(GOFUMPT) $(STATICCHECK) $(PLUGINS) ## formatting, vet, staticcheck, import arrows, lengths, generated files
	@bad=$$($(GOFUMPT) -l .) && test -z "$$bad" || { echo "not formatted (gofumpt -w): $$bad"; exit 1; }
	go vet ./... && go vet -tags simruntime ./eos ./internal/sim
	$(STATICCHECK) ./... && $(STATICCHECK) -tags simruntime ./eos ./internal/sim
	cd bench/reads && go vet ./... && ../../$(STATICCHECK) ./...
	cd internal/systemtest && go vet ./... && ../../$(STATICCHECK) ./...
	go test ./internal/layout
	go run ./internal/protogen -check

lost-replies: bin/chaos ## 500 and more commits of which a reply never arrives; about 6 minutes
	bin/chaos -lose-replies 0.05 -lost-replies-min 500 -only SIGTERM -only "kill -9" -faults 30 -every 12s -events 200000 $(ARGS)

model: ## model check of commit and takeover with Spin (apt-get install spin), two minutes; ARGS="NAME …" for some searches
	docs/model/check.sh $(ARGS)

mutants: ## wrong versions of the core, each of which the tests must catch, 20 minutes; ARGS=NAME for one
	go run ./internal/mutants $(ARGS)

quick: ## the tests that need no Java, without the race detector; names what it left out
	go run ./internal/testreport -short $(PACKAGES)

reads: ## how fast a view answers, beside Redis and Postgres (apt-get install redis-server postgresql), 10 minutes; ARGS="-quick"
	go build -C bench/reads -o ../../bin/reads . && bin/reads $(ARGS)

sim: ## simulated crashes of the unit of work, 2000 of them; ARGS="-seed N" runs one history again and keeps its trace
	go run ./internal/sim/cmd $(ARGS)

sim-long: ## 100,000 simulated crashes, about 25 minutes; ARGS="-for 8m" for a part, which says with which -from to go on
	go run ./internal/sim/cmd -crashes 100000 $(ARGS)

stall: ## what watchers that take nothing cost the others: 10 % at most, on a quiet machine; 5 minutes
	go run ./internal/watchers/cmd -stall 8 -watchers 500 -rate 500 -pad 800 -for 12s $(ARGS)

systemtest: ## Goka's own system tests on a real Kafka, as they stand and over our unit (docs/goka-systemtests.md); 15 minutes; ARGS="-subject ours"
	go build -C internal/systemtest -o ../../bin/systemtest . && bin/systemtest $(ARGS)

takeover: bin/chaos ## 50 takeovers after kill -9 at default settings, then processors that join, leave and restart; about 15 minutes
	bin/chaos $(DEFAULTS) -processors 3 -only "kill -9" -down 8s -within any=10s -faults 50 -every 1s -events 100000 $(ARGS)
	bin/chaos $(DEFAULTS) -processors 2 -processors-max 4 $(COMING) -within any=10s -within "clean restart=3s" -within "kill -9, started again at once=5s" -faults 40 -every 2s -events 100000 $(ARGS)
	bin/chaos $(DEFAULTS) -processors 1 -only "clean restart" -only "kill -9, started again at once" \
		-within "kill -9, started again at once, the only processor=3s" -within "clean restart, the only processor=3s" -faults 20 -every 2s -events 100000 $(ARGS)

test: tools lint ## everything: unit, embedded broker, real Kafka, under the race detector; REQUIRE=1 fails on a skip
	go run ./internal/testreport $(TESTFLAGS) $(PACKAGES)
	go test -run AFullOrFailingDisk ./eos ./view

token-reads: bin/chaos ## 1,000,000 reads that name what was just acknowledged, and 16 watchers, while processors and views get killed; about 5 minutes
	bin/chaos $(TOKENS) -readers 256 -token-reads 1000000 -watchers 4 -faults 40 -every 6s -events 60000 $(ARGS)

tools:
	@missing() { echo "missing: $$1"; test -z "$$2" || exit 1; }; \
	command -v cc >/dev/null || missing "a C compiler, for the race detector (Debian: apt-get install gcc libc6-dev)" stop; \
	command -v java >/dev/null || missing "java 17 or later, for a real Kafka (Debian: apt-get install openjdk-17-jre-headless)" $(REQUIRE); \
	command -v mvn >/dev/null || missing "mvn, to fetch Kafka's jars (Debian: apt-get install maven)" $(REQUIRE); \
	command -v node >/dev/null && command -v npm >/dev/null || missing "node and npm, to try a TypeScript client (Debian: apt-get install nodejs npm)" $(REQUIRE); \
	command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		missing "chromium, to open the view's page (Debian: apt-get install chromium)" $(REQUIRE)

watchers: ## 10,000 watchers of two views, which are killed again and again: each is told every version once and in order; 3 minutes
	go run ./internal/watchers/cmd $(ARGS)

bin/chaos: FORCE
	go build -o $@ ./internal/chaos/cmd

zombies: bin/chaos ## 200 and more commits sent after a successor's Setup, none of which may be accepted; about 8 minutes
	bin/chaos -only "zombie commit" -session 1200ms -processors 4 -partitions 8 -zombies-min 200 -faults 450 -every 600ms $(ARGS)

$(GOFUMPT):
	GOBIN=$(CURDIR)/bin go install mvdan.cc/gofumpt@$(@:bin/gofumpt-%=%) && mv bin/gofumpt $@

$(STATICCHECK):
	GOBIN=$(CURDIR)/bin go install honnef.co/go/tools/cmd/staticcheck@$(@:bin/staticcheck-%=%) && mv bin/staticcheck $@

# Their versions stand in tools/go.mod, a module of its own: what they need is none of Tidemark's business.
$(PLUGINS) &: tools/go.mod tools/go.sum
	go build -C tools -o ../bin/ google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go \
		github.com/sudorandom/protoc-gen-connect-openapi

bin/grpcurl: tools/go.mod tools/go.sum
	go build -C tools -o ../bin/ github.com/fullstorydev/grpcurl/cmd/grpcurl

FORCE:
