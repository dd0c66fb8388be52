"""A deterministic image for the pull and unpack benchmarks, as an OCI image layout.

    python benchmarks/image.py DIRECTORY [--size MB] [--files N] [--layers N] [--tag NAME]

The defaults make 500 MB of content, about 213 MB compressed. The same arguments give the same bytes
on every machine with the same zlib. File sizes follow a skewed curve (many small, a few of
megabytes), contents compress to about 42 %, directories are a few levels deep, every tenth entry is
a symbolic or hard link. The layers are of unequal size, as in real images.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import tarfile
import zlib
from pathlib import Path

SHARES = (0.40, 0.25, 0.15, 0.10, 0.06, 0.04)
GZIP_LEVEL = 6
LINKS = (9, 19)  # of each twenty entries: a hard link, a symbolic link
_BLOCK = 1 << 16


def content_pool(seed: random.Random) -> bytes:
    """4 MiB whose slices compress to about 40 %: half random bytes, half repeated words."""
    words = [seed.randbytes(seed.randint(3, 9)).hex().encode() for _ in range(600)]
    parts = []
    for _ in range(64):
        noise = seed.randbytes(_BLOCK * 53 // 200)
        text = b" ".join(seed.choices(words, k=_BLOCK // 10))
        parts.append((noise + text)[:_BLOCK].ljust(_BLOCK, b"."))
    return b"".join(parts)


def file_sizes(seed: random.Random, count: int, total: int) -> list[int]:
    """`count` sizes, log-normal; those of the regular files add up to `total`."""
    raw = [seed.lognormvariate(0, 1.8) if i % 20 not in LINKS else 0.0 for i in range(count)]
    scale = total / sum(raw)
    return [int(value * scale) for value in raw]


def layer_tar(seed: random.Random, pool: bytes, index: int, files: int, size: int) -> bytes:
    """One layer as an uncompressed tar."""
    out = io.BytesIO()
    plain: list[str] = []
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, length in enumerate(file_sizes(seed, files, size)):
            directory = f"usr/share/layer{index}/d{number // 400:03}/s{number // 20:04}"
            if number % 20 == 0:
                tar.addfile(_info(directory, tarfile.DIRTYPE, 0o755))
            name = f"{directory}/file{number:05}"
            if number % 20 == 19:
                link = _info(name, tarfile.SYMTYPE, 0o777)
                link.linkname = plain[-1].rpartition("/")[2]
                tar.addfile(link)
            elif number % 20 == 9:
                link = _info(name, tarfile.LNKTYPE, 0o644)
                link.linkname = plain[-1]
                tar.addfile(link)
            else:
                tar.addfile(_regular(name, length, number), _Slices(pool, number * 4099, length))
                plain.append(name)
    return out.getvalue()


def _info(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, 1_700_000_000
    return info


def _regular(name: str, length: int, number: int) -> tarfile.TarInfo:
    info = _info(name, tarfile.REGTYPE, 0o755 if number % 7 == 0 else 0o644)
    info.size = length
    return info


class _Slices(io.RawIOBase):
    """`length` bytes of `pool`, from `start` and round again."""

    def __init__(self, pool: bytes, start: int, length: int) -> None:
        self._pool, self._position, self._left = pool, start % len(pool), length

    def read(self, size: int = -1) -> bytes:
        size = self._left if size < 0 else min(size, self._left)
        data = self._pool[self._position : self._position + size]
        self._position = (self._position + len(data)) % len(self._pool)
        self._left -= len(data)
        if 0 < len(data) < size:
            data += self.read(size - len(data))
        return data


class Layout:
    """An OCI image layout being written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add(self, content: bytes, media_type: str) -> dict[str, object]:
        """Store a blob; its descriptor."""
        name = hashlib.sha256(content).hexdigest()
        (self.root / "blobs" / "sha256" / name).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{name}", "size": len(content)}

    def add_json(self, value: object, media_type: str) -> dict[str, object]:
        """Store a document; its descriptor."""
        return self.add(json.dumps(value, separators=(",", ":")).encode(), media_type)


def gzip(data: bytes) -> bytes:
    """Gzip without a name or a time."""
    machine = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    return machine.compress(data) + machine.flush()


def _shares(layers: int) -> list[float]:
    weights = [SHARES[i % len(SHARES)] for i in range(layers)]
    return [weight / sum(weights) for weight in weights]


def make_image(root: Path, *, size: int, files: int, layers: int = 6, tag: str = "latest") -> str:
    """Write the layout: `size` bytes in `files` files over `layers` layers. The manifest digest."""
    layout = Layout(root)
    seed = random.Random(f"sampan {size} {files} {layers}")
    pool = content_pool(seed)
    descriptors, diff_ids = [], []
    for index, share in enumerate(_shares(layers)):
        tar = layer_tar(seed, pool, index, round(files * share), round(size * share))
        diff_ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
        packed = gzip(tar)
        descriptors.append(layout.add(packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
        del tar, packed
    config = layout.add_json(_config(diff_ids), "application/vnd.oci.image.config.v1+json")
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = layout.add_json(
        {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": descriptors}, kind
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": tag}
    index_document = {"schemaVersion": 2, "manifests": [manifest]}
    (root / "index.json").write_text(json.dumps(index_document))
    return str(manifest["digest"])


def _config(diff_ids: list[str]) -> dict[str, object]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "amd64")
    return {
        "architecture": machine,
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="write a deterministic OCI image layout")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", type=int, default=500, help="megabytes of file content")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--tag", default="latest")
    options = parser.parse_args()
    print(
        make_image(
            options.directory,
            size=options.size * 1_000_000,
            files=options.files,
            layers=options.layers,
            tag=options.tag,
        )
    )


if __name__ == "__main__":
    main()
