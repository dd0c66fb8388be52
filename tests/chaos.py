"""kill -9 of engine, spawner, nursery and shims at random under a load, and the judgement after it.

The referee kills; `judge` compares what the clients wrote down (chaosload.py) with what an engine
that comes afterwards says, and with what is on the machine. By hand:
`scripts/inside.py python tests/chaos.py 300 SEED` in private namespaces, as `scripts/test` does.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from chaosload import TEXT
from enginelab import Lab, eventually, shims_running
from sampan.engine.model import Container, Event, Status
from sampan.tasks.recovery import LOST, LOST_CODE

Fact = dict[str, Any]
LOAD = Path(__file__).parent / "chaosload.py"


class Chaos:
    """A load over a lab, and what was killed of it."""

    def __init__(self, lab: Lab, seed: int, clients: int = 4) -> None:
        self.lab = lab
        self.chance = random.Random(seed)
        self.journal = lab.path / "journal"
        self.killed: Counter[str] = Counter()
        self.lost: set[str] = set()
        self.unknown = 0
        self._settings = {
            "root": lab.config.root,
            "state": lab.config.state,
            "parent": lab.parent,
            "rootfs": lab.rootfs,
            "journal": str(self.journal),
            "seed": str(seed),
            "clients": str(clients),
        }
        self.errors = open(lab.path / "errors", "ab")  # noqa: SIM115 - for all engines of the run
        self.engine = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(LOAD), json.dumps(self._settings)], stderr=self.errors
        )

    def run(self, kills: int, pause: float = 0.15) -> None:
        """Kill so many times, at random moments, then let the load finish."""
        attempts = 0
        while self.killed.total() < kills:  # on a slow machine there often is nothing to kill yet
            attempts += 1
            assert attempts <= 100 * kills, f"only {dict(self.killed)} after {attempts} attempts"
            self._await_open()
            time.sleep(self.chance.uniform(0, 2 * pause))  # the moment is what is random here
            what = self.chance.choice(("engine", "spawner", "nursery", "shim", "shim", "shim"))
            getattr(self, f"_kill_{what}")()
            assert what == "engine" or self.engine.poll() is None, self.messages()
        self._await_open()
        self.engine.terminate()
        assert self.engine.wait(120) == 0, self.messages()
        self.errors.close()

    def messages(self) -> str:
        """What the engines complained of."""
        return (self.lab.path / "errors").read_text()[-4000:]

    def facts(self) -> list[Fact]:
        """The journal."""
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_bytes().split(b"\n") if line]

    def _await_open(self) -> None:
        deadline = time.monotonic() + 60
        mark = f'"pid": {self.engine.pid}}}'.encode()
        while not (self.journal.exists() and mark in self.journal.read_bytes()):
            assert self.engine.poll() is None, self.messages()
            assert time.monotonic() < deadline, f"no engine in a minute: {self.messages()}"
            time.sleep(0.01)

    def _kill_engine(self) -> None:
        self.engine.kill()
        self.engine.wait()
        self.killed["engine"] += 1
        self.engine = self._spawn()

    def _kill_spawner(self) -> None:
        for pid in children(self.engine.pid):
            if name_of(pid) == "sampan-spawner":
                self._kill(pid, "spawner")

    def _kill_nursery(self) -> None:
        for spawner in children(self.engine.pid):
            for pid in children(spawner):
                if name_of(pid) == "sampan-nursery":
                    self._kill(pid, "nursery")

    def _kill_shim(self) -> None:
        """One that has a container, or none yet."""
        numbers = map(int, filter(str.isdecimal, os.listdir("/proc")))
        shims = [pid for pid in numbers if name_of(pid) in ("sampan-shim", "sampan-monitor")]
        if not shims:
            return
        pid = self.chance.choice(shims)
        # Stopped first, so that what it watches cannot change between the look and the kill.
        try:
            os.kill(pid, 19)
        except ProcessLookupError:
            return
        owner = self._container_of(pid)
        self.lost |= {owner} if owner else set()
        self.unknown += not owner
        self._kill(pid, "shim")

    def _container_of(self, shim: int) -> str:
        for path in Path(self.lab.config.state, "shims").glob("*/state.json"):
            try:
                if json.loads(path.read_bytes())["shim_pid"] == shim:
                    return path.parent.name
            except (OSError, ValueError, KeyError):
                continue
        return ""

    def _kill(self, pid: int, what: str) -> None:
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            return
        self.killed[what] += 1


def children(pid: int) -> list[int]:
    """The processes that have this parent."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == pid:
            found.append(int(name))
    return found


def name_of(pid: int) -> str:
    """The name of a process, "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


async def judge(chaos: Chaos) -> list[str]:
    """What was lost, contradicts itself, or is left: sentences, none when all is well."""
    lab, wrong = chaos.lab, []
    facts = chaos.facts()
    async with lab.engine() as engine:
        await eventually(lambda: not any(_is_busy(one) for one in engine.list(all=True)))
        left = {one.id: one for one in engine.list(all=True)}
        events = [event async for event in engine.events(since=1, until=time.time_ns())]
        wrong += judge_events(facts, events, set(left), chaos.lost)
        lost = lost_of(facts, chaos, list(left.values()))
        wrong += judge_codes(facts, lost)
        codes = {fact["id"]: fact["code"] for fact in facts if fact["what"] == "starting"}
        for one in left.values():
            wanted = codes.get(one.id)
            is_over = one.status is Status.EXITED and one.state.finished_at
            if not is_over or wanted is None or one.id in lost:
                pass
            elif one.state.exit_code != wanted:
                wrong.append(f"{one.name} was to end with {wanted}: {one.state}")
            await engine.remove(one.id, force=True)
        name = next((fact["name"] for fact in facts if fact["what"] == "created"), "again")
        made = await engine.create(lab.config_of("true"), name=name)
        await engine.remove(made.id)
    try:
        await eventually(lambda: shims_running(str(lab.path)) == [], 10)
    except AssertionError:
        wrong.append(f"processes are left: {shims_running(str(lab.path))}")
    for folder in ("state/shims", "root/containers", "root/snapshots"):
        try:
            await eventually(lambda folder=folder: os.listdir(lab.path / folder) == [], 10)
        except AssertionError:
            wrong.append(f"{folder} has {os.listdir(lab.path / folder)}")
    try:
        await eventually(lambda: lab.cgroups() == [], 10)
    except AssertionError:
        wrong.append(f"cgroups are left: {lab.cgroups()}")
    return wrong


def _is_busy(container: Container) -> bool:
    """Whether it will still change by itself."""
    text = " ".join(container.args)
    ends = "exit" in text and "trap" not in text
    return container.status is Status.RESTARTING or (container.status.is_running and ends)


def judge_events(
    facts: list[Fact], events: list[Event], left: set[str], lost: set[str]
) -> list[str]:
    """Everything that a client was promised has its event, once, and in order."""
    wrong = []
    told: dict[str, list[str]] = defaultdict(list)
    for event in events:
        if event.type == "container" and not event.action.startswith(("exec", "kill", "stop")):
            told[event.actor_id].append(event.action)
    numbers = [event.id for event in events]
    if numbers != sorted(set(numbers)):
        wrong.append("the numbers of the events are not in order")
    first = events[0].time_ns  # older ones were forgotten: the store keeps ten thousand
    known = {fact["id"] for fact in facts if fact["what"] == "created" and fact["at"] > first}
    for fact in facts:
        if fact.get("id") not in known:
            continue
        action = {"created": "create", "started": "start", "removed": "destroy"}.get(fact["what"])
        if action and action not in told[fact["id"]]:
            wrong.append(f"no event {action} of {fact['id'][:12]}: {told[fact['id']]}")
    for actor, actions in told.items():
        if actor not in known:
            continue
        wrong += [f"{actor[:12]}: {text}: {actions}" for text in _disorder(actions)]
        if actor not in left and actions[-1] != "destroy":
            wrong.append(f"{actor[:12]} is gone without an event: {actions}")
    return wrong


def _disorder(actions: list[str]) -> list[str]:
    """create (start die)* destroy."""
    found = []
    if actions[0] != "create" or actions.count("create") != 1:
        found.append("it was not created once and first")
    if actions.count("destroy") > 1 or ("destroy" in actions and actions[-1] != "destroy"):
        found.append("it was not destroyed once and last")
    runs = [action for action in actions if action in ("start", "die")]
    if any(action != ("start", "die")[index % 2] for index, action in enumerate(runs)):
        found.append("starts and ends do not take turns")
    return found


def lost_of(facts: list[Fact], chaos: Chaos, left: list[Container]) -> set[str]:
    """The containers whose monitor was killed.

    One that was killed while it got its container was nobody's yet, and so was a second monitor,
    which a keeper started: so many may be lost more.
    """
    said = [one.id for one in left if one.state.error == LOST]
    for fact in facts:
        is_lost = fact["what"] in ("ended", "swept") and fact.get("error") == LOST
        if is_lost or (fact["what"] == "exec" and fact["code"] == LOST_CODE):
            said.append(fact["id"])
    more = [ref for ref in dict.fromkeys(said) if ref not in chaos.lost]
    return chaos.lost | set(more[: chaos.unknown])


def judge_codes(facts: list[Fact], lost: set[str]) -> list[str]:
    """Every code and line is the one that the program gave, but of those that were lost."""
    wrong = []
    codes = {fact["id"]: fact["code"] for fact in facts if fact["what"] == "starting"}
    for fact in facts:
        what, ref = fact["what"], fact.get("id")
        if ref in lost:
            continue
        if what in ("ended", "swept") and codes.get(ref) is not None and fact["code"] != codes[ref]:
            wrong.append(f"{ref[:12]} ended with {fact['code']}, not {codes[ref]}: {fact}")
        elif what == "logged" and fact["text"] != TEXT + "\n":
            wrong.append(f"{ref[:12]} logged {fact['text']!r}")
        elif what == "exec" and fact["code"] != fact["wanted"]:
            wrong.append(f"an exec in {ref[:12]} ended with {fact['code']}, not {fact['wanted']}")
        elif what == "stopped" and fact["code"] not in (33, 143, LOST_CODE):
            wrong.append(f"{ref[:12]} stopped with {fact['code']}")
        elif what == "given-up" and fact["code"] != 5:
            wrong.append(f"{ref[:12]} was given up with {fact['code']}")
    return wrong


# ruff: noqa: T201 - what follows is the command line


def main(kills: int, seed: int) -> int:
    """By hand: kill, judge, and say everything."""
    base = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
    lab = Lab(base)
    chaos = Chaos(lab, seed)
    began = time.monotonic()
    chaos.run(kills)
    print(f"{dict(chaos.killed)} in {time.monotonic() - began:.0f} s")
    print(Counter(fact["what"] for fact in chaos.facts()))
    for error, number in Counter(
        (fact["life"], _plain(fact["error"])) for fact in chaos.facts() if fact["what"] == "failed"
    ).most_common():
        print(f"  {number} times: {error}")
    wrong = asyncio.run(judge(chaos))
    if lab.config.root in Path("/proc/self/mountinfo").read_text():
        wrong.append("mounts are left")
    lab.close()
    print("\n".join(wrong) or "nothing is lost, nothing is left")
    print("in", base)
    return len(wrong)


def _plain(text: str) -> str:
    return " ".join("X" if len(word) > 40 or "-" in word else word for word in text.split())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
