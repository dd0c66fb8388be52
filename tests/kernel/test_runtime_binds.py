"""Bind mounts of `sampan-oci`: their flags, which their sources may have too, and their order."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bundles import Bundle

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
BOTH_WAYS = pytest.mark.parametrize("way", ["machine", "interpreter"])


@pytest.fixture
def bundle(tmp_path: Path, way: str):
    made = Bundle(tmp_path)
    if way == "interpreter":
        made.config["hooks"] = {"poststop": [{"path": "/bin/true"}]}
    if way == "users":
        os.chmod(tmp_path, 0o755)
        linux = made.config["linux"]
        linux["namespaces"].append({"type": "user"})
        mapping = {"containerID": 0, "hostID": 100000, "size": 65534}
        linux["uidMappings"] = linux["gidMappings"] = [mapping]
        subprocess.run(["chown", "-R", "100000:100000", made.rootfs], check=True)
    yield made
    done = made.oci("delete", "--force", made.id)
    assert made.cgroup_is_gone(), done


@pytest.fixture
def source(tmp_path: Path):
    """A function: a mounted directory with these flags."""
    made = tmp_path / "source"
    made.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", made], check=True)

    def flagged(flags: str) -> str:
        subprocess.run(["mount", "-o", f"remount,bind,{flags}", made], check=True)
        return str(made)

    yield flagged
    subprocess.run(["umount", made], check=True)


def flags_of(bundle: Bundle, source: str, *options: str) -> set[str]:
    """The flags of a bind mount, as the container sees them."""
    entry = {"destination": "/mnt", "source": source, "options": ["bind", *options]}
    mounts = [one for one in bundle.config["mounts"] if one["destination"] != "/mnt"]
    bundle.config["mounts"] = [*mounts, entry]
    result = bundle.run("awk '$2 == \"/mnt\" { print $4 }' /proc/mounts")
    assert result.returncode == 0, result.stderr
    return set(result.stdout.strip().split(","))


@BOTH_WAYS
@pytest.mark.parametrize(
    ("held", "options", "there", "gone"),
    [
        ("ro,noexec,nodiratime", [], {"ro", "noexec", "nodiratime"}, {"rw"}),
        ("ro,noexec,nodiratime", ["dev"], {"rw", "nodiratime"}, {"ro", "noexec"}),
        ("ro", ["nosuid", "nodev", "rprivate"], {"rw", "nosuid", "nodev"}, {"ro"}),
        ("nodev,nosuid,noexec", ["ro"], {"ro", "relatime"}, {"nodev", "nosuid", "noexec"}),
        ("noatime", ["atime"], {"noatime"}, {"relatime"}),
        ("noatime", ["relatime"], {"relatime"}, {"noatime"}),
        ("noatime", ["nodiratime"], {"nodiratime", "relatime"}, {"noatime"}),
        ("nodiratime", ["strictatime"], {"rw"}, {"relatime", "noatime", "nodiratime"}),
    ],
)
def test_named_flags_replace_those_of_the_source(
    bundle: Bundle, source, held: str, options: list[str], there: set[str], gone: set[str]
):
    found = flags_of(bundle, source(held), *options)
    assert there <= found
    assert not gone & found


@pytest.mark.parametrize("way", ["users"])
def test_a_user_namespace_keeps_the_flags_of_the_source(bundle: Bundle, source):
    found = flags_of(bundle, source("ro,nodev,noatime"), "nosuid")
    assert {"ro", "nodev", "nosuid", "noatime"} <= found
    assert "rw" in flags_of(bundle, source("rw,dev,relatime"), "rw")


@pytest.mark.parametrize("way", ["users"])
@pytest.mark.parametrize(
    ("held", "option"), [("ro", "rw"), ("nodev", "dev"), ("noatime", "relatime")]
)
def test_and_refuses_to_clear_one_by_name(bundle: Bundle, source, held: str, option: str):
    entry = {"destination": "/mnt", "source": source(held), "options": ["bind", option]}
    bundle.config["mounts"].append(entry)
    refused = bundle.run("true")
    assert refused.returncode == 1
    assert "on /mnt" in refused.stderr
    assert "operation not permitted" in refused.stderr


@BOTH_WAYS
def test_mounts_have_the_order_of_the_configuration(bundle: Bundle):
    wanted = []
    for number in range(3):
        tmpfs = {"type": "tmpfs", "source": "tmpfs", "destination": f"/t{number}"}
        bind = {"source": "/etc", "destination": f"/b{number}", "options": ["rbind"]}
        bundle.config["mounts"] += [tmpfs, bind]
        wanted += [f"/t{number}", f"/b{number}"]
    if bundle.config.get("hooks"):
        bundle.config["mounts"][-1]["options"].append("rslave")
    found = bundle.run("cut -d' ' -f5 /proc/self/mountinfo").stdout.split()
    assert [path for path in found if path in wanted] == wanted


@BOTH_WAYS
def test_a_source_that_is_missing_is_named(bundle: Bundle):
    entry = {"source": "/nosuch", "destination": "/mnt", "options": ["bind"]}
    bundle.config["mounts"].append(entry)
    refused = bundle.run("true")
    assert refused.returncode == 1
    said = "bind mount of /nosuch on /mnt: no such file or directory"
    assert said in refused.stderr
