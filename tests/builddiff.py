"""What builds of `buildcases` come to, in a form in which builders can be compared.

An image is read from an archive (docker's or OCI's, whoever wrote it): its configuration, and every
path that is not as in the base image. Run as a program, as root in private namespaces, this records
what dockerd and buildah make of every case in `recordings/builds.json`:

    unshare -mpn --fork --mount-proc --propagation private .venv/bin/python scripts/inside.py \
        .venv/bin/python tests/builddiff.py
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dockerlab
import peerlab
from buildcases import BUILDAH, CASES, DOCKER, TIME
from buildlab import context

RECORDING = Path(__file__).parent / "recordings/builds.json"
PREFIX = "127.0.0.1/case"
APPLETS = (
    "sh echo cat ls ln mkdir rm mv touch find chmod chown id env pwd head mkfifo true false grep "
    "wc sleep tail"
)
_KEYS = (
    "Cmd Entrypoint Env ExposedPorts Healthcheck Labels OnBuild Shell StopSignal User Volumes "
    "WorkingDir"
)


def base_tar():
    """The root file system that all begin with."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:

        def add(name, content=None, mode=0o644, link=""):
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.mode = TIME - 1, mode
            if content is None:
                entry.type = tarfile.SYMTYPE if link else tarfile.DIRTYPE
                entry.linkname = link
                tar.addfile(entry)
                return
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))

        for name in ("bin", "dev", "etc", "etc/conf", "proc", "run", "sys"):
            add(name, mode=0o755)
        add("tmp", mode=0o1777)
        add("bin/busybox", Path(dockerlab.BUSYBOX).read_bytes(), 0o755)
        for name in APPLETS.split():
            add(f"bin/{name}", link="busybox")
        add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nbob:x:1001:1002:bob:/home/bob:/bin/sh\n")
        add("etc/group", b"root:x:0:\nbob:x:1002:\nextra:x:1003:bob\n")
        add("etc/motd", b"hello\n")
        add("etc/conf/one", b"1\n")
        add("etc/conf/two", b"2\n")
        for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf"):
            add(name, b"")
    return target.getvalue()


# reading images


def read_docker_archive(path):
    """name -> outcome, of an archive as `docker save` writes it."""
    found = {}
    trees = {}
    with tarfile.open(path) as tar:
        members = {member.name.removeprefix("./"): member for member in tar.getmembers()}

        def blob(name):
            member = members[name]
            while member.issym():  # docker's way to share a layer
                name = os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
                member = members[name]
            return name, tar.extractfile(member).read()

        for image in json.loads(blob("manifest.json")[1]):
            config = json.loads(blob(image["Config"])[1])
            for name in image["RepoTags"] or ():
                layers = [blob(layer) for layer in image["Layers"]]
                found[name.rpartition("/")[2]] = outcome(config, layers, trees)
    return found


def read_directories(path, names):
    """name -> outcome, of directories as `skopeo copy X dir:` writes them."""
    trees = {}
    found = {}
    for name in names:

        def blob(descriptor, place=path / name):
            digest = descriptor["digest"].partition(":")[2]
            return digest, (place / digest).read_bytes()

        manifest = json.loads((path / name / "manifest.json").read_text())
        config = json.loads(blob(manifest["config"])[1])
        found[name] = outcome(config, [blob(layer) for layer in manifest["layers"]], trees)
    return found


def outcome(config, layers, trees):
    """What there is to compare of one image."""
    tree = {}
    for name, content in layers:
        if name not in trees:
            trees[name] = _entries(content)
        _apply(tree, trees[name])
    base = _base()
    files = {path: fact for path, fact in tree.items() if base.get(path) != fact}
    files |= {path: "gone" for path in base if path not in tree}
    kept = {key: config["config"].get(key) for key in _KEYS.split() if config["config"].get(key)}
    kept.get("Labels", {}).pop("io.buildah.version", None)
    for key in ("ExposedPorts", "Volumes"):
        if key in kept:
            kept[key] = sorted(kept[key])
    kept = {key: value for key, value in kept.items() if value}
    if author := config.get("author"):
        kept["author"] = author
    return {"config": kept, "files": dict(sorted(files.items()))}


_found_base = {}


def _base():
    if not _found_base:
        _apply(_found_base, _entries(base_tar()))
    return _found_base


def _entries(content):
    """(path, fact) of a layer, in order; a fact is None for a whiteout."""
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    found = []
    facts = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            path = os.path.normpath(member.name).lstrip("/")
            if path == ".":
                continue
            fact = _fact(tar, member, facts)
            facts[path] = fact
            found.append((path, fact))
    return found


def _fact(tar, member, facts):
    if member.islnk():
        return facts[os.path.normpath(member.linkname).lstrip("/")]
    owner = f"{member.mode & 0o7777:o} {member.uid}:{member.gid}"
    if member.isdir():
        return f"{owner} directory"
    if member.issym():
        return f"link {member.uid}:{member.gid} {member.linkname}"
    if not member.isfile():
        return f"{owner} type {member.type!r}"
    data = tar.extractfile(member).read()
    shown = repr(data.decode("latin-1")) if len(data) < 200 else hashlib.sha256(data).hexdigest()
    return f"{owner} {shown}" + (" kept-time" if int(member.mtime) == TIME else "")


def _apply(tree, entries):
    for path, _ in entries:
        folder, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            for inner in [each for each in tree if each.startswith(folder + "/")]:
                del tree[inner]
        elif name.startswith(".wh."):
            gone = os.path.join(folder, name[4:])
            for inner in [each for each in tree if each == gone or each.startswith(gone + "/")]:
                del tree[inner]
    for path, fact in entries:
        if os.path.basename(path).startswith(".wh."):
            continue
        if not fact.endswith("directory"):
            for inner in [each for each in tree if each.startswith(path + "/")]:
                del tree[inner]
        tree[path] = fact


# building


def write_context(case, place, text):
    """The context as a directory."""
    with tarfile.open(fileobj=io.BytesIO(context({"Dockerfile": text, **case.files}))) as tar:
        tar.extractall(place)
    for folder, names, files in os.walk(place, topdown=False):
        for name in [*names, *files]:
            os.utime(os.path.join(folder, name), (TIME, TIME), follow_symlinks=False)


def builds(peer):
    """(tag, Dockerfile, case) of everything that a peer builds, parents first."""
    cases = [case for case in CASES if peer in case.peers]
    before = [(f"parent-{case.name}", case.before, case) for case in cases if case.before]
    return before, [(case.name, case.dockerfile, case) for case in cases]


def _parented(text, case):
    return text.replace(f"parent:{case.name}", f"{PREFIX}:parent-{case.name}")


def _flags(case, *, is_parent):
    if is_parent:
        return []
    flags = [f"--build-arg={name}={value}" for name, value in case.args.items()]
    flags += [f"--label={name}={value}" for name, value in case.labels.items()]
    return flags + ([f"--target={case.target}"] if case.target else [])


def run_docker(base, chosen=None):
    """case -> outcome with dockerd's classic builder."""
    tags, errors = [], {}
    with peerlab.dockerd(base) as docker:
        (base / "bb.tar").write_bytes(base_tar())
        docker("import", base / "bb.tar", "bb:1")

        def build(tag, text, case):
            place = tempfile.mkdtemp(dir=base)
            write_context(case, place, _parented(text, case))
            environ = {**os.environ, "DOCKER_BUILDKIT": "0", "HOME": str(base)}
            host = f"unix://{base}/docker/docker.sock"
            flags = _flags(case, is_parent=tag.startswith("parent-"))
            words = ["build", "--network=none", "-t", f"{PREFIX}:{tag}", *flags, place]
            _one(["docker", "-H", host, *words], environ, tag, tags, errors)

        _all(build, DOCKER, chosen)
        docker("save", "-o", base / "docker.tar", *(f"{PREFIX}:{tag}" for tag in tags))
    found = read_docker_archive(base / "docker.tar")
    return {tag: found[f"case:{tag}"] for tag in tags} | errors


def run_buildah(base, chosen=None):
    """case -> outcome with buildah."""
    tags, errors = [], {}
    roots = ("--root", f"{base}/ba/root", "--runroot", f"{base}/ba/run")
    environ = {**os.environ, "HOME": str(base), "STORAGE_DRIVER": "overlay"}
    (base / "out").mkdir()

    def buildah(*words):
        return peerlab.call("buildah", *roots, *words, env=environ)

    (base / "bb.tar").write_bytes(base_tar())
    (base / "scratch").mkdir()
    (base / "scratch/Dockerfile").write_text("FROM scratch\nADD bb.tar /\n")
    shutil.copy(base / "bb.tar", base / "scratch/bb.tar")
    buildah("bud", "-q", "--layers=false", "-t", "bb:1", base / "scratch")

    def build(tag, text, case):
        place = tempfile.mkdtemp(dir=base)
        write_context(case, place, _parented(text, case))
        flags = _flags(case, is_parent=tag.startswith("parent-"))
        isolation = ("--isolation=chroot", "--network=host", "--format=docker", "--layers=false")
        words = ["bud", "-q", *isolation, "-t", f"{PREFIX}:{tag}", *flags, place]
        _one(["buildah", *roots, *words], environ, tag, tags, errors)

    _all(build, BUILDAH, chosen)
    for tag in tags:
        buildah("push", "-q", "-D", "--format=v2s2", f"{PREFIX}:{tag}", f"dir:{base}/out/{tag}")
    return read_directories(base / "out", tags) | errors


def _all(build, peer, chosen):
    for group in builds(peer):
        wanted = [one for one in group if chosen is None or one[2].name in chosen]
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(build, *one) for one in wanted]:
                done.result()


def _one(argv, environ, tag, tags, errors):
    done = subprocess.run(argv, env=environ, capture_output=True, timeout=120, check=False)
    if done.returncode:
        last = done.stderr.decode().strip().splitlines()
        word = (last[-1] if last else "no word").replace(argv[-1], "CONTEXT")
        errors[tag] = {"error": word}
    elif not tag.startswith("parent-"):
        tags.append(tag)


def main():
    """Record everything."""
    recorded = {}
    with tempfile.TemporaryDirectory(prefix="builds-", dir="/tmp") as place:
        for name, run in ((DOCKER, run_docker), (BUILDAH, run_buildah)):
            base = Path(place) / name
            base.mkdir()
            for case, found in run(base).items():
                recorded.setdefault(case, {})[name] = found
    RECORDING.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
