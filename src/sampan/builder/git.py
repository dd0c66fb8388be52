"""Git repositories as contexts, for `ADD https://host/x.git#ref:directory` and builds from URLs.

A repository is fetched bare, one commit deep, and its files come out of the object database as a
tar: nothing is ever checked out, so no hook, filter, link or attribute in it means anything here.
Only network protocols are allowed, for submodules too, which are left out. Whatever could be taken
for an option is refused before git sees it.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sampan.builder import gitdirectory
from sampan.builder.leftovers import CLONE_PREFIX
from sampan.errors import DigestMismatch, InvalidArgument, Unavailable
from sampan.layers import header, tarwriter
from sampan.store import trees

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SECONDS: Final = 600.0
MAX_ENTRIES: Final = 500_000
_REF: Final = re.compile(r"(?!-)[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}", re.ASCII)
_DIRECTORY: Final = re.compile(r"(?!-)[^\0:\\]{1,1000}")
_SCP: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^-].*", re.ASCII)
_WEB: Final = re.compile(r"(?:https?|git|ssh)://[A-Za-z0-9\[][^\s\0]*", re.ASCII | re.IGNORECASE)
_SETTINGS: Final = (
    "protocol.allow=never",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.git.allow=always",
    "protocol.ssh.allow=always",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "http.followRedirects=initial",
    "transfer.fsckObjects=true",
)
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Repository:
    """Where a repository is, what of it: `ref` "" is its HEAD, `directory` "" all of it."""

    url: str
    ref: str = ""
    directory: str = ""


def is_repository(word: str) -> bool:
    """Whether a word names a git repository: by its scheme, or by `.git` at the end of a URL."""
    lower = word.lower()
    if lower.startswith(("git://", "ssh://")) or _SCP.fullmatch(word):
        return True
    return lower.startswith(("http://", "https://")) and lower.partition("#")[0].endswith(".git")


def parse(word: str) -> Repository:
    """The repository that a word names: `url#ref:directory`.

    Raises:
        InvalidArgument: it could be taken for something else.
    """
    url, _, fragment = word.partition("#")
    ref, _, directory = fragment.partition(":")
    if not (_WEB.fullmatch(url) or _SCP.fullmatch(url)):
        raise InvalidArgument(f"git {word[:200]!r}: the URL is malformed")
    if ref and (_REF.fullmatch(ref) is None or ".." in ref or ref.endswith((".lock", "/"))):
        raise InvalidArgument(f"git {word[:200]!r}: invalid ref {ref[:80]!r}")
    parts = [part for part in directory.split("/") if part not in ("", ".")]
    if directory and (_DIRECTORY.fullmatch(directory) is None or ".." in parts):
        raise InvalidArgument(f"git {word[:200]!r}: invalid directory {directory[:80]!r}")
    return Repository(url, ref, "/".join(parts))


async def archive(
    repository: Repository, directory: str, *, keep: bool = False, commit: str = ""
) -> AsyncIterator[bytes]:
    """The files of a repository as a tar; a scratch directory below `directory` is used.

    With `keep` its `.git` too, unless only a directory of it is wanted; `commit` is what it must
    be.

    Raises:
        Unavailable: it cannot be fetched, or has no such ref or directory.
        DigestMismatch: it is another commit.
    """
    scratch = tempfile.mkdtemp(prefix=CLONE_PREFIX, dir=directory)
    try:
        async with asyncio.timeout(SECONDS):
            git = _Git(scratch, repository)
            await git.fetch()
            found = await git.commit()
            if commit and found != commit:
                raise DigestMismatch(f"git {repository.url}: its commit is {found}, not {commit}")
            if keep and not repository.directory:
                for piece in await git.directory(found):
                    yield piece
            async for piece in git.tar():
                yield piece
    except TimeoutError:
        raise Unavailable(f"git {repository.url}: not done after {SECONDS:.0f} seconds") from None
    finally:
        await asyncio.to_thread(_remove, scratch)


def sweep(directory: str) -> None:
    """Remove what an engine that was killed left."""
    for name in os.listdir(directory):
        if name.startswith(CLONE_PREFIX):
            _remove(os.path.join(directory, name))


def _remove(path: str) -> None:
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trees.remove(fd, name)
    finally:
        os.close(fd)


class _Git:
    """One bare clone."""

    def __init__(self, scratch: str, repository: Repository) -> None:
        self._repository = repository
        self._scratch = scratch
        self._env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": scratch,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            "GIT_DIR": f"{scratch}/git",
            "LC_ALL": "C",
        }

    async def fetch(self) -> None:
        await self._run("init", "--quiet", "--bare", "--", f"{self._scratch}/git")
        wanted = self._repository.ref or "HEAD"
        flags = ("--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules")
        await self._run("fetch", *flags, "--", self._repository.url, wanted)

    async def commit(self) -> str:
        """What was fetched."""
        return (await self._run("rev-parse", "FETCH_HEAD^{commit}")).decode().strip()

    async def directory(self, commit: str) -> Iterator[bytes]:
        """The entries of its `.git`."""
        await self._run("read-tree", commit)
        time = int(await self._run("log", "-1", "--format=%ct", commit))
        return gitdirectory.pieces(f"{self._scratch}/git", commit, self._repository.url, time)

    async def tar(self) -> AsyncIterator[bytes]:
        time = int(await self._run("log", "-1", "--format=%ct", "FETCH_HEAD"))
        root = f"FETCH_HEAD:{self._repository.directory}"
        listing = await self._run("ls-tree", "-r", "-t", "-z", "--full-tree", root)
        entries = [entry for entry in listing.split(b"\0") if entry]
        if len(entries) > MAX_ENTRIES:
            raise InvalidArgument(f"git {self._repository.url}: more than {MAX_ENTRIES} files")
        process = await self._start("cat-file", "--batch", stdin=asyncio.subprocess.PIPE)
        assert process.stdin is not None
        try:
            for entry in entries:
                async for piece in self._entry(process, entry, time):
                    yield piece
            yield tarwriter.END
            process.stdin.close()
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _entry(
        self, process: asyncio.subprocess.Process, entry: bytes, time: int
    ) -> AsyncIterator[bytes]:
        facts, _, path = entry.partition(b"\t")
        mode, kind, name = facts.split(b" ")
        if kind == b"tree":
            yield tarwriter.header(path + b"/", header.DIRECTORY, mode=0o755, mtime=time)
        if kind != b"blob":
            return  # a tree, or a submodule, which is another repository
        size = await _ask(process, name)
        assert process.stdout is not None
        if mode == b"120000":
            link = await process.stdout.readexactly(size)
            yield tarwriter.header(path, header.SYMLINK, mode=0o777, mtime=time, link=link)
        else:
            bits = 0o755 if mode == b"100755" else 0o644
            yield tarwriter.header(path, header.REGULAR, mode=bits, mtime=time, size=size)
            left = size
            while left:
                piece = await process.stdout.readexactly(min(left, _PIECE))
                left -= len(piece)
                yield piece
            yield tarwriter.padding(size)
        await process.stdout.readexactly(1)

    async def _start(
        self, *words: str, stdin: int = asyncio.subprocess.DEVNULL
    ) -> asyncio.subprocess.Process:
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        try:
            return await asyncio.create_subprocess_exec(
                "git",
                *settings,
                *words,
                env=self._env,
                cwd=self._scratch,
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_PIECE,
            )
        except FileNotFoundError:
            raise Unavailable("git repositories need the program git, which is not here") from None

    async def _run(self, *words: str) -> bytes:
        process = await self._start(*words)
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            said = err.decode("utf-8", "replace").strip()[-300:]
            raise Unavailable(f"git {self._repository.url}: {words[0]} failed: {said}")
        return out


async def _ask(process: asyncio.subprocess.Process, name: bytes) -> int:
    """Ask `cat-file --batch` for an object; its size. The bytes follow, and a line feed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(name + b"\n")
    await process.stdin.drain()
    words = (await process.stdout.readline()).split()
    if len(words) != 3:
        raise Unavailable(f"git: the object {name.decode()} is missing")
    return int(words[2])
