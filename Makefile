# `make demo` and `make test` do everything, set-up included. Both need root.
DEMO_PACKAGES = busybox-static docker-registry
TEST_PACKAGES = $(DEMO_PACKAGES) buildah containerd containernetworking-plugins dbus-daemon docker-compose docker.io git iproute2 iptables \
	crun libarchive-tools libseccomp2 nftables openssh-client podman runc runsc skopeo strace tmux uidmap umoci util-linux xfsprogs

.PHONY: demo test test-vm bench clean

demo:
	@scripts/setup $(DEMO_PACKAGES)
	@.venv/bin/python scripts/demo.py

test:
	@scripts/setup $(TEST_PACKAGES)
	@scripts/test

# The kernel tests on a host with cgroup version 2 and systemd, in an emulated machine.
test-vm:
	@scripts/setup qemu-system-x86 mmdebstrap e2fsprogs
	@.venv/bin/python scripts/vm.py

bench:
	@scripts/setup $(DEMO_PACKAGES) runc crun containerd docker.io podman skopeo iproute2 iptables
	@.venv/bin/python benchmarks/run.py

clean:
	rm -rf .venv .vm build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
