"""CNI: foreign plugins that connect a network namespace to a network.

`Plugins` runs the plugins of a configuration list as programs: ADD, CHECK, DEL, GC, STATUS. What an
ADD answered is kept in a file until its DEL, because CHECK and DEL give it to the plugins again,
and because whoever is restarted must be able to release what was added before. The file is there
before the first plugin runs, so that a kill in the middle of an ADD is undone by the DEL.

    plugins = Plugins(["/usr/lib/cni"], cache="/var/lib/sampan/cni")
    result = await plugins.add(conflist, "/run/netns/x", "x", "eth0", {"K8S_POD_NAME": "a"})
    await plugins.delete(conflist, "/run/netns/x", "x", "eth0")

A plugin that fails undoes what the plugins before it did. All verbs but ADD may be repeated.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from sampan.errors import (
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SampanError,
)
from sampan.network.conflist import Conflist, check_word, load_conflists, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["CniError", "Conflist", "Plugins", "Result", "load_conflists", "parse"]

PATIENCE = 60.0
"""Seconds that one plugin has."""

MAX_ANSWER = 1 << 20
_NO_RESULT = (0, 4, 0)  # before this version CHECK does not exist, and DEL gets no result
_GC = (1, 1, 0)


class CniError(SampanError):
    """A plugin failed; `code` is CNI's number (11: try again later)."""

    grpc = "UNKNOWN"

    def __init__(self, message: str, code: int = 999) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an ADD answered. `ips` are `address/prefix` of the interfaces inside the namespace."""

    ips: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    interfaces: tuple[Mapping[str, Any], ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)


class _Cached(msgspec.Struct, kw_only=True):
    v: int
    network: str
    id: str
    ifname: str
    netns: str
    args: dict[str, str]
    capabilities: dict[str, Any]
    config: dict[str, Any]
    result: dict[str, Any] | None = None


_encode = msgspec.json.encode
_decode_cached = msgspec.json.Decoder(_Cached).decode


class Plugins:
    """Runs plugins found in `directories`; results are kept below `cache`, which is made."""

    def __init__(self, directories: Sequence[str], cache: str, patience: float = PATIENCE) -> None:
        self._directories = tuple(directories)
        self._cache = cache
        self._patience = patience

    async def add(
        self,
        conf: Conflist,
        netns_path: str,
        container_id: str,
        ifname: str = "eth0",
        args: Mapping[str, str] | None = None,
        capabilities: Mapping[str, Any] | None = None,
    ) -> Result:
        """Connect the namespace at `netns_path` by every plugin of the list, in order.

        `args` are CNI_ARGS. `capabilities` (`portMappings`, `bandwidth`, ...) reach the plugins
        that declare them.

        Raises:
            CniError: a plugin failed, and what was done is undone.
            NotFound: there is no such plugin. DeadlineExceeded: it did not end in time.
            Conflict: this interface of this container is connected already.
        """
        run = _Run(conf, netns_path, container_id, ifname, args or {}, capabilities or {})
        path = self._path(run)
        if self._load(path) is not None:
            raise Conflict(f"connect {container_id} to {conf.name}: {ifname} is connected already")
        self._keep(path, run)
        try:
            result: dict[str, Any] | None = None
            for plugin in conf.plugins:
                result = await self._call("ADD", run, plugin, result)
        except BaseException:
            await self._undo(conf, run, path)
            raise
        run.result = result or {}
        self._keep(path, run)
        return parse_result(run.result)

    async def check(
        self, conf: Conflist, netns_path: str, container_id: str, ifname: str = "eth0"
    ) -> None:
        """Let every plugin see whether what it made is still as it made it.

        Raises:
            CniError: it is not. NotFound: it was never added.
            FailedPrecondition: the list's version knows no CHECK.
        """
        if conf.number < _NO_RESULT:
            raise FailedPrecondition(f"check {conf.name}: version {conf.version} has no CHECK")
        if conf.disable_check:
            return
        run = _Run(conf, netns_path, container_id, ifname, {}, {})
        cached = self._load(self._path(run))
        if cached is None or cached.result is None:
            raise NotFound(f"check {container_id}: not connected to {conf.name} by {ifname}")
        run.take(cached)
        for plugin in conf.plugins:
            await self._call("CHECK", run, plugin, cached.result)

    async def delete(
        self,
        conf: Conflist,
        netns_path: str,
        container_id: str,
        ifname: str = "eth0",
        args: Mapping[str, str] | None = None,
        capabilities: Mapping[str, Any] | None = None,
    ) -> None:
        """Disconnect, in reverse order; nothing happens twice. `netns_path` "" when it is gone.

        What was added by another version of the list is undone by that one.

        Raises:
            CniError: a plugin failed; call it again.
        """
        run = _Run(conf, netns_path, container_id, ifname, args or {}, capabilities or {})
        path = self._path(run)
        cached = self._load(path)
        if cached is not None:
            run.take(cached)
            conf = run.conf = parse(_encode(cached.config))  # what was added, it undoes
        result = run.result if conf.number >= _NO_RESULT else None
        for plugin in reversed(conf.plugins):
            await self._call("DEL", run, plugin, result)
        _unlink(path)

    async def gc(self, conf: Conflist, valid: Iterable[tuple[str, str]]) -> None:
        """Release what belongs to no attachment in `valid`, pairs of (container id, ifname).

        What we have added ourselves is deleted; the plugins are asked to look for more, unless the
        list says that others use it too (`disableGC`).

        Raises:
            CniError: a plugin failed.
        """
        kept = set(valid)
        for cached in self.attachments(conf.name):
            if (cached.id, cached.ifname) not in kept:
                await self.delete(conf, "", cached.id, cached.ifname)
        if conf.disable_gc or conf.number < _GC:
            return
        attachments = [{"containerID": one, "ifname": name} for one, name in sorted(kept)]
        for plugin in conf.plugins:
            more = {"cni.dev/valid-attachments": attachments, "cni.dev/attachments": attachments}
            await self._call("GC", _Run(conf, "", "", "", {}, {}), {**plugin, **more}, None)

    async def status(self, conf: Conflist) -> None:
        """Whether the plugins could do an ADD now.

        Raises:
            CniError: one could not. NotFound: one is not here.
        """
        for plugin in conf.plugins:
            self._find(plugin["type"])
        if conf.number < _GC:
            return
        for plugin in conf.plugins:
            await self._call("STATUS", _Run(conf, "", "", "", {}, {}), plugin, None)

    def find(self, container_id: str, ifname: str = "eth0") -> Conflist | None:
        """The list that an interface was added by and is not yet deleted by."""
        for cached in self._load_all(lambda name: name.endswith(f"@{container_id}@{ifname}.json")):
            return parse(_encode(cached.config))
        return None

    def attachments(self, network: str = "") -> list[_Cached]:
        """What was added and not deleted, of one network or of all."""
        return self._load_all(lambda name: not network or name.startswith(f"{network}@"))

    # details

    async def _undo(self, conf: Conflist, run: _Run, path: str) -> None:
        for plugin in reversed(conf.plugins):
            try:
                await self._call("DEL", run, plugin, None)
            except SampanError:
                continue  # the file stays out of the way; the plugin had nothing to undo
        _unlink(path)

    async def _call(
        self, verb: str, run: _Run, plugin: Mapping[str, Any], result: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        program = self._find(plugin["type"])
        config = run.config_of(plugin, result)
        try:
            async with asyncio.timeout(self._patience):
                code, out, err = await _execute(program, run.environment(verb, self._directories),
                                                _encode(config))  # fmt: skip
        except TimeoutError:
            raise DeadlineExceeded(
                f"{verb} by CNI plugin {plugin['type']}: not done in {self._patience:.0f} s"
            ) from None
        if code != 0:
            raise _failure(verb, plugin["type"], code, out, err)
        if verb != "ADD" or not out.strip():
            return None
        return _object(out, f"{verb} by CNI plugin {plugin['type']}")

    def _find(self, kind: str) -> str:
        for directory in self._directories:
            path = os.path.join(directory, kind)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
        where = ", ".join(self._directories)
        raise NotFound(f"find CNI plugin {kind}: it is not in {where}")

    def _path(self, run: _Run) -> str:
        return os.path.join(self._cache, f"{run.conf.name}@{run.id}@{run.ifname}.json")

    def _keep(self, path: str, run: _Run) -> None:
        os.makedirs(self._cache, 0o700, exist_ok=True)
        fresh = path + ".new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _encode(run.cached()))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(fresh, path)

    def _load_all(self, fits: Callable[[str], bool]) -> list[_Cached]:
        try:
            names = sorted(os.listdir(self._cache))
        except FileNotFoundError:
            return []
        loaded = (self._load(os.path.join(self._cache, name)) for name in names if fits(name))
        return [one for one in loaded if one is not None]

    def _load(self, path: str) -> _Cached | None:
        try:
            with open(path, "rb") as file:
                return _decode_cached(file.read(4 * MAX_ANSWER))
        except (FileNotFoundError, msgspec.MsgspecError):
            return None


class _Run:
    """One attachment, as the plugins are told of it."""

    def __init__(
        self,
        conf: Conflist,
        netns: str,
        container_id: str,
        ifname: str,
        args: Mapping[str, str],
        capabilities: Mapping[str, Any],
    ) -> None:
        self.conf, self.netns = conf, netns
        self.id = check_word(container_id, "container id") if container_id else ""
        self.ifname = check_ifname(ifname) if ifname else ""
        self.args = {key: str(value) for key, value in args.items()}
        if any(";" in word or "=" in key for key, word in self.args.items()):
            raise InvalidArgument("CNI arguments: ; or = in a name or a value")
        self.capabilities = dict(capabilities)
        self.result: dict[str, Any] | None = None

    def take(self, cached: _Cached) -> None:
        """What was said at the ADD."""
        self.args, self.capabilities, self.result = cached.args, cached.capabilities, cached.result

    def cached(self) -> _Cached:
        conf = self.conf
        config: dict[str, Any] = {"cniVersion": conf.version, "name": conf.name}
        config |= {"disableCheck": conf.disable_check, "plugins": list(conf.plugins)}
        return _Cached(
            v=1, network=conf.name, id=self.id, ifname=self.ifname, netns=self.netns,
            args=self.args, capabilities=self.capabilities, config=config, result=self.result,
        )  # fmt: skip

    def environment(self, verb: str, directories: Sequence[str]) -> dict[str, str]:
        values = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.id,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in self.args.items()),
            "CNI_PATH": ":".join(directories),
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        return {key: value for key, value in values.items() if value}

    def config_of(
        self, plugin: Mapping[str, Any], result: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        config = {**plugin, "name": self.conf.name, "cniVersion": self.conf.version}
        declared = config.pop("capabilities", None) or {}
        given = {name: self.capabilities[name] for name, on in declared.items()
                 if on and name in self.capabilities}  # fmt: skip
        if given:
            config["runtimeConfig"] = given
        if result is not None:
            config["prevResult"] = result
        return config


def parse_result(content: Mapping[str, Any]) -> Result:
    """The parts of a result that others need, whatever its version."""
    entries = [entry for entry in content.get("ips") or () if isinstance(entry, Mapping)]
    if not entries:  # version 0.2.0
        old = [content.get("ip4"), content.get("ip6")]
        entries = [{**one, "address": one.get("ip")} for one in old if isinstance(one, Mapping)]
    return Result(
        ips=tuple(str(entry["address"]) for entry in entries if entry.get("address")),
        gateways=tuple(str(entry["gateway"]) for entry in entries if entry.get("gateway")),
        interfaces=tuple(content.get("interfaces") or ()),
        dns=content.get("dns") or {},
        raw=content,
    )


def check_ifname(name: str) -> str:
    """Return `name` when it may name an interface.

    Raises:
        InvalidArgument: it may not.
    """
    good = 0 < len(name) <= 15 and name not in (".", "..")
    if not good or any(letter in "/:" or letter.isspace() for letter in name):
        raise InvalidArgument(f"invalid interface name {name!r}")
    return name


async def _execute(
    program: str, environment: dict[str, str], text: bytes
) -> tuple[int, bytes, bytes]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd="/", limit=MAX_ANSWER
    )
    try:
        out, err = await process.communicate(text)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    return process.returncode or 0, out[:MAX_ANSWER], err[:4096]


def _failure(verb: str, kind: str, code: int, out: bytes, err: bytes) -> CniError:
    """A plugin says what failed as JSON on its standard output."""
    label = f"{verb} by CNI plugin {kind}"
    try:
        said = msgspec.json.decode(out)
    except msgspec.MsgspecError:
        said = None
    if isinstance(said, dict) and said.get("msg"):
        details = f": {said['details']}" if said.get("details") else ""
        number = said.get("code")
        return CniError(f"{label}: {said['msg']}{details}", number if type(number) is int else 999)
    text = (err or out).decode("utf-8", "replace").strip()[:500]
    return CniError(f"{label}: it ended with {code}: {text or 'without a word'}")


def _object(text: bytes, label: str) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(text)
    except msgspec.MsgspecError as error:
        raise CniError(f"{label}: its answer is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CniError(f"{label}: its answer is no JSON object")
    return content


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
