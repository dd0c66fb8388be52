"""What a store costs beside time: bytes on the wire, memory, and the list of many images.

The second image is the large one with one small layer more: an engine that has the first moves that
layer only. Bytes are counted on the lab's loopback, so they hold whatever the registry sends. The
memory of a pull is the proportional memory of all processes of our engine, looked at every few
milliseconds while it pulls; a small image beside the large one shows that the size does not matter.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import tarfile
import threading
import time
from typing import TYPE_CHECKING

import image
import memory
from commands import runner_of
from peers import BUSYBOX, LARGE, REGISTRY
from timing import Api, Row, rows

if TYPE_CHECKING:
    from pathlib import Path

    from peers import Engine
    from source import Registry
    from timing import Runner

MOVED = "pull of an image with a base that is here"
PEAK = "memory of a pull, at most"
LIST = "list of 200 images"
_OCI = "application/vnd.oci.image"
_SECOND = f"{REGISTRY}/second:1"
_IMAGES, _ROUNDS = 200, 21
_LOOK = 0.01  # seconds


def measure(
    kinds: tuple[type[Engine], ...],
    place: Path,
    layout: Path,
    registry: Registry,
    runners: dict[bool, Runner],
) -> list[Row]:
    """Every engine moves the second image; the rest is about ours."""
    place.mkdir()
    size = _second(layout, place / "second", registry)
    moved: dict[str, list[float]] = {"the new layer": [size / 1e6]}
    found: list[Row] = []
    for kind in kinds:
        engine = kind(place / kind.name[0])
        before = memory.uses()
        engine.start()
        try:
            if kind.name == "sampan":
                found += _peaks(engine, before, runners)
            else:
                runner_of(engine, runners)(engine.pull(LARGE))
            start = _received()
            runner_of(engine, runners)(engine.pull(_SECOND))
            moved[kind.name] = [(_received() - start) / 1e6]
            if kind.name == "sampan":
                run = runner_of(engine, runners)
                run(engine.load(str(_many(place / "many"))))
                found += rows(LIST, "ms", {"sampan, over the API": _lists(engine)})
        finally:
            engine.stop()
    return [*rows(MOVED, "MB", moved), *found]


def _second(layout: Path, place: Path, registry: Registry) -> int:
    """Push the large image with one layer more; that layer's size in bytes."""
    shutil.copytree(layout, place)
    index = json.loads((place / "index.json").read_text())
    made = image.Layout(place)
    manifest = _blob(place, index["manifests"][0]["digest"])
    config = _blob(place, manifest["config"]["digest"])
    tar = _tar({"new": random.Random("new").randbytes(1_000_000)})
    layer = made.add(image.gzip(tar), manifest["layers"][0]["mediaType"])
    config["rootfs"]["diff_ids"].append(f"sha256:{_sha256(tar)}")
    manifest["layers"].append(layer)
    manifest["config"] = made.add_json(config, manifest["config"]["mediaType"])
    index["manifests"] = [made.add_json(manifest, manifest["mediaType"])]
    (place / "index.json").write_text(json.dumps(index))
    registry.push(place, _SECOND)
    return int(str(layer["size"]))


def _blob(layout: Path, digest: str) -> dict[str, object]:
    path = layout / "blobs/sha256" / digest.removeprefix("sha256:")
    document: dict[str, object] = json.loads(path.read_text())
    return document


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _received() -> int:
    """Bytes that went over the lab's loopback."""
    with open("/proc/net/dev") as file:
        line = next(line for line in file if line.strip().startswith("lo:"))
    return int(line.partition(":")[2].split()[0])


def _peaks(engine: Engine, before: dict[int, memory.Use], runners: dict[bool, Runner]) -> list[Row]:
    taken = {}
    for title, name in (("2 MB", BUSYBOX), ("500 MB", LARGE)):
        looks: list[int] = []
        ended = threading.Event()
        thread = threading.Thread(target=_look, args=(before, looks, ended))
        thread.start()
        runner_of(engine, runners)(engine.pull(name))
        ended.set()
        thread.join()
        taken[f"sampan, {title}"] = [max(looks) / 1024]
    return rows(PEAK, "MiB", taken)


def _look(before: dict[int, memory.Use], looks: list[int], ended: threading.Event) -> None:
    while not ended.is_set():
        looks.append(sum(use.pss for pid, use in memory.uses().items() if pid not in before))
        time.sleep(_LOOK)


def _many(place: Path) -> Path:
    """An OCI layout of many images that share their layer."""
    made = image.Layout(place)
    tar = _tar({"file": b"x"})
    layer = made.add(image.gzip(tar), f"{_OCI}.layer.v1.tar+gzip")
    entries = []
    for number in range(_IMAGES):
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [f"NUMBER={number}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(tar)}"]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": made.add_json(config, f"{_OCI}.config.v1+json"),
            "layers": [layer],
        }
        entry = made.add_json(manifest, f"{_OCI}.manifest.v1+json")
        entry["annotations"] = {"org.opencontainers.image.ref.name": f"many:{number}"}
        entries.append(entry)
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return place


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _lists(engine: Engine) -> list[float]:
    """Milliseconds of one request after the other, on an open connection."""
    api = Api(engine.socket)
    try:
        taken = []
        for _ in range(_ROUNDS):
            begin = time.perf_counter()
            found = api.call("GET", "/images/json")
            taken.append((time.perf_counter() - begin) * 1e3)
        assert len(found) >= _IMAGES, len(found)
        return taken[1:]
    finally:
        api.close()
