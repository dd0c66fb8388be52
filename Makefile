# Two commands do everything, set-up included: `make demo` and `make test`. Both need root.
DEMO_PACKAGES = busybox-static docker-registry
TEST_PACKAGES = $(DEMO_PACKAGES) buildah containerd containernetworking-plugins docker.io iproute2 iptables \
	crun libarchive-tools libseccomp2 nftables podman runc runsc skopeo strace umoci util-linux xfsprogs

.PHONY: demo test bench clean

demo:
	@scripts/setup $(DEMO_PACKAGES)
	@.venv/bin/python scripts/demo.py

test:
	@scripts/setup $(TEST_PACKAGES)
	@scripts/test

bench:
	@scripts/setup $(DEMO_PACKAGES) runc crun containerd docker.io podman skopeo iproute2 iptables
	@.venv/bin/python benchmarks/run.py

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
