# Go, a C compiler (for the race detector), Java 17 and Maven are all that is needed; the rest is fetched by go and mvn.
# `make help` lists the targets.

GOFUMPT     := bin/gofumpt-v0.12.0
STATICCHECK := bin/staticcheck-v0.8.2
PLUGINS     := bin/protoc-gen-go bin/protoc-gen-connect-go bin/protoc-gen-connect-openapi

# What runs at once: packages, and tests of one package that wait for brokers more than they compute.
TESTFLAGS ?= -race -p 2 -parallel 4 -timeout 20m
PACKAGES  ?= ./...

.DEFAULT_GOAL := help
.PHONY: FORCE bench build chaos chaos-long clean generate help kafka lint quick test tools

bench: ## measure against stock Goka, on a real Kafka; ARGS="-quick" for a minute
	go run ./bench $(ARGS)

build: ## build bin/tidemark
	CGO_ENABLED=0 go build -trimpath -o bin/tidemark ./cmd/tidemark

chaos: bin/chaos ## two processors on a real Kafka through 10 random kills, freezes and stops; ARGS="-faults N -seed N …"
	bin/chaos -faults 10 -events 100000 $(ARGS)

chaos-long: bin/chaos ## 120 faults in 300,000 events and more, and stock Goka as the control, which must lose count
	bin/chaos -faults 120 $(ARGS)
	bin/chaos -subject stock -faults 20 $(ARGS); test $$? -eq 1

clean: ## remove what was built and fetched; .tidemark, which holds data, stays
	rm -rf bin .cache

generate: $(PLUGINS) ## make what follows from proto/tidemark/v1/view.proto: Go, Connect, OpenAPI
	go run ./internal/protogen

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

kafka: ## run a real Kafka on 127.0.0.1:9092 until Ctrl-C; ARGS="-port N -dir DIR"
	go run ./internal/kafkatest/kafka $(ARGS)

lint: $(GOFUMPT) $(STATICCHECK) $(PLUGINS) ## formatting, vet, staticcheck, import arrows, lengths, generated files
	@bad=$$($(GOFUMPT) -l .) && test -z "$$bad" || { echo "not formatted (gofumpt -w): $$bad"; exit 1; }
	go vet ./...
	$(STATICCHECK) ./...
	go test ./internal/layout
	go run ./internal/protogen -check

quick: ## the tests that need no Java, without the race detector; names what it left out
	go run ./internal/testreport -short $(PACKAGES)

test: tools lint ## everything: unit, embedded broker, real Kafka, under the race detector; REQUIRE=1 fails on a skip
	go run ./internal/testreport $(TESTFLAGS) $(PACKAGES)

tools:
	@missing() { echo "missing: $$1"; test -z "$$2" || exit 1; }; \
	command -v cc >/dev/null || missing "a C compiler, for the race detector (Debian: apt-get install gcc libc6-dev)" stop; \
	command -v java >/dev/null || missing "java 17 or later, for a real Kafka (Debian: apt-get install openjdk-17-jre-headless)" $(REQUIRE); \
	command -v mvn >/dev/null || missing "mvn, to fetch Kafka's jars (Debian: apt-get install maven)" $(REQUIRE)

bin/chaos: FORCE
	go build -o $@ ./internal/chaos/cmd

$(GOFUMPT):
	GOBIN=$(CURDIR)/bin go install mvdan.cc/gofumpt@$(@:bin/gofumpt-%=%) && mv bin/gofumpt $@

$(STATICCHECK):
	GOBIN=$(CURDIR)/bin go install honnef.co/go/tools/cmd/staticcheck@$(@:bin/staticcheck-%=%) && mv bin/staticcheck $@

# Their versions stand in tools/go.mod, a module of its own: what they need is none of Tidemark's business.
$(PLUGINS) &: tools/go.mod tools/go.sum
	go build -C tools -o ../bin/ google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go \
		github.com/sudorandom/protoc-gen-connect-openapi

FORCE:
