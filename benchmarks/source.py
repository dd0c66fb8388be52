"""The registry that all engines pull from, and the small image that they run.

Debian's docker-registry serves on the lab's loopback. Images are written as OCI layouts and copied
into it by skopeo, so no engine has an advantage of having made them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import image
from peers import REGISTRY, Engine
from timing import Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSYBOX = Path("/bin/busybox")
_APPLETS = ("sh", "true", "sleep", "cat", "echo")
_OCI = "application/vnd.oci.image"
_NGINX = """\
user root;
worker_processes 1;
pid /tmp/nginx.pid;
error_log stderr crit;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server { listen 80 backlog=4096; location / { return 200 "hello from a container\\n"; } }
}
"""


class Registry(Engine):
    """Debian's docker-registry on loopback, with the two images."""

    name = "registry"

    def __init__(self, place: Path, address: str = REGISTRY) -> None:
        super().__init__(place)
        self.address = address

    def start(self) -> None:
        """Serve from the lab's directory."""
        self.place.mkdir(exist_ok=True)
        config = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": f"{self.place}/data"}},
            "http": {"addr": self.address},
            "log": {"level": "error", "accesslog": {"disabled": True}},
        }
        file = self.place / "registry.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        url = f"http://{self.address}/v2/"
        self.daemon(
            ["docker-registry", "serve", str(file)],
            lambda: urllib.request.urlopen(url, timeout=5).close(),
        )

    def push(self, layout: Path, name: str) -> None:
        """Copy the one image of an OCI layout into the registry."""
        words = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}"]
        done = subprocess.run(
            [*words, f"docker://{name}"], env=self.environ, capture_output=True, check=False
        )
        if done.returncode:
            raise Failed(f"push {name}: {done.stderr.decode()}")

    def warm(self) -> None:
        """Read every blob once, so that all engines find them in the page cache."""
        for file in _files(self.place / "data"):
            with file.open("rb") as blob:
                while blob.read(1 << 20):
                    pass


def archive(layout: Path, name: str, path: Path) -> None:
    """Write the one image of an OCI layout as an archive that every engine loads."""
    words = ["skopeo", "copy", "--quiet", f"oci:{layout}", f"docker-archive:{path}:{name}"]
    subprocess.run(words, check=True, capture_output=True)


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


def busybox(place: Path) -> Path:
    """Debian's static busybox as an OCI layout at `place`/layout, its files at `place`/rootfs.

    At `place`/pause lies the same as an image that sleeps, for runtimes whose pods need one.
    """
    root = place / "rootfs"
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp"):
        (root / folder).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(BUSYBOX.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    packed = subprocess.run(["tar", "-C", root, "-c", "."], check=True, capture_output=True).stdout
    _write_layout(place / "layout", packed, ["true"])
    _write_layout(place / "pause", packed, ["sleep", "1000000"])
    return root


def tools(place: Path, root: Path) -> Path:
    """The busybox at `root` with Debian's iperf3 and nginx, as an OCI layout."""
    full = place / "tools-rootfs"
    shutil.copytree(root, full, symlinks=True)
    for name in ("iperf3", "nginx"):
        path = shutil.which(name)
        assert path is not None
        shutil.copy(path, full / "bin")
        for library in _libraries(path):
            copied = full / library.lstrip("/")
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, copied)
    (full / "etc/nginx.conf").write_text(_NGINX)
    packed = subprocess.run(["tar", "-C", full, "-c", "."], check=True, capture_output=True).stdout
    _write_layout(place / "tools", packed, ["sleep", "100000"])
    return place / "tools"


def _libraries(program: str) -> list[str]:
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [word for word in listed.split() if word.startswith("/")]


def _write_layout(folder: Path, tar: bytes, command: list[str]) -> None:
    """An OCI layout of one layer."""
    layout = image.Layout(folder)
    config = {
        "architecture": {"aarch64": "arm64"}.get(os.uname().machine, "amd64"),
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {
            "type": "layers",
            "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()],
        },
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "busybox"}],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": layout.add_json(config, f"{_OCI}.config.v1+json"),
        "layers": [layout.add(image.gzip(tar), f"{_OCI}.layer.v1.tar+gzip")],
    }
    descriptor = layout.add_json(manifest, f"{_OCI}.manifest.v1+json")
    index = {"schemaVersion": 2, "manifests": [descriptor]}
    (folder / "index.json").write_text(json.dumps(index))
