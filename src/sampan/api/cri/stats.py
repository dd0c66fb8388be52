"""Statistics of containers and pods, and the stream of what happens to containers."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sampan.api.cri import answers
from sampan.api.cri.sandboxes import has_labels
from sampan.errors import InvalidArgument, SampanError, Unavailable
from sampan.pods import gauges
from sampan.pods.model import OWNER, Mode
from sampan.pods.network import INTERFACE
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from sampan.api.cri.calls import Stream, Unary
    from sampan.api.cri.containers import Containers
    from sampan.engine.model import Event
    from sampan.engine.model import Stats as Reading
    from sampan.pods.containers import PodContainer
    from sampan.pods.model import Sandbox
    from sampan.pods.service import Pods

_EVENTS = {
    "create": pb.CONTAINER_CREATED_EVENT,
    "start": pb.CONTAINER_STARTED_EVENT,
    "die": pb.CONTAINER_STOPPED_EVENT,
    "destroy": pb.CONTAINER_DELETED_EVENT,
}


class Stats:
    """Answers with numbers."""

    def __init__(self, pods: Pods, containers: Containers) -> None:
        self._pods = pods
        self._containers = containers

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "ContainerStats": self.container,
            "ListContainerStats": self.all_containers,
            "PodSandboxStats": self.sandbox,
            "ListPodSandboxStats": self.all_sandboxes,
        }

    def streams(self) -> dict[str, Stream]:
        """Method -> answers."""
        return {
            "GetContainerEvents": self.events,
            "StreamContainerStats": self.stream_containers,
            "StreamPodSandboxStats": self.stream_sandboxes,
        }

    async def container(self, request: pb.ContainerStatsRequest) -> pb.ContainerStatsResponse:
        """One container."""
        if not request.container_id:
            raise InvalidArgument("container_id is missing")
        one = self._pods.containers.find(request.container_id)
        return pb.ContainerStatsResponse(stats=await self._read(one))

    async def all_containers(
        self, request: pb.ListContainerStatsRequest
    ) -> pb.ListContainerStatsResponse:
        """The running containers that pass the filter."""
        found = self._fitting_containers(request.filter)
        return pb.ListContainerStatsResponse(stats=await self._running(found))

    async def stream_containers(
        self, request: pb.StreamContainerStatsRequest
    ) -> AsyncIterator[pb.StreamContainerStatsResponse]:
        """The same, one after the other."""
        for one in self._fitting_containers(request.filter):
            for stats in await self._running([one]):
                yield pb.StreamContainerStatsResponse(container_stats=[stats])

    async def sandbox(self, request: pb.PodSandboxStatsRequest) -> pb.PodSandboxStatsResponse:
        """One sandbox with its containers."""
        if not request.pod_sandbox_id:
            raise InvalidArgument("pod_sandbox_id is missing")
        one = self._pods.table.find(request.pod_sandbox_id)
        return pb.PodSandboxStatsResponse(stats=await self._sandbox(one))

    async def all_sandboxes(
        self, request: pb.ListPodSandboxStatsRequest
    ) -> pb.ListPodSandboxStatsResponse:
        """The ready sandboxes that pass the filter."""
        found = [await self._sandbox(one) for one in self._fitting_sandboxes(request.filter)]
        return pb.ListPodSandboxStatsResponse(stats=found)

    async def stream_sandboxes(
        self, request: pb.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxStatsResponse]:
        """The same, one after the other."""
        for one in self._fitting_sandboxes(request.filter):
            stats = await self._sandbox(one)
            yield pb.StreamPodSandboxStatsResponse(pod_sandbox_stats=[stats])

    def _fitting_containers(self, wanted: pb.ContainerStatsFilter) -> list[PodContainer]:
        return [
            one
            for one in self._pods.containers.all()
            if one.container.id.startswith(wanted.id)
            and one.notes.sandbox.startswith(wanted.pod_sandbox_id)
            and has_labels(one.notes.request.labels, wanted.label_selector)
        ]

    def _fitting_sandboxes(self, wanted: pb.PodSandboxStatsFilter) -> list[Sandbox]:
        return [
            one
            for one in self._pods.table
            if one.id.startswith(wanted.id)
            and has_labels(one.config.labels, wanted.label_selector)
            and self._pods.sandboxes.is_ready(one)
        ]

    def events(self, _request: pb.GetEventsRequest) -> AsyncIterator[pb.ContainerEventResponse]:
        """What happens to containers from now on, each with the state of its pod."""
        return self._events(self._pods.engine.events(owner=OWNER))

    async def _events(
        self, source: AsyncIterator[Event]
    ) -> AsyncIterator[pb.ContainerEventResponse]:
        sandboxes = {one.container.id: one.notes.sandbox for one in self._pods.containers.all()}
        async for event in source:
            kind = _EVENTS.get(event.action)
            if event.type != "container" or kind is None:
                continue
            message = self._event(event.actor_id, kind, event.time_ns, sandboxes)
            if message is not None:
                yield message

    def _event(
        self, container_id: str, kind: int, at: int, sandboxes: dict[str, str]
    ) -> pb.ContainerEventResponse | None:
        """None for a container of somebody else."""
        try:
            sandboxes[container_id] = self._pods.containers.find(container_id).notes.sandbox
        except SampanError:
            if container_id not in sandboxes:
                return None
        sandbox_id = sandboxes[container_id]
        if kind == pb.CONTAINER_DELETED_EVENT:
            del sandboxes[container_id]
        message = pb.ContainerEventResponse(
            container_id=container_id,
            container_event_type=kind,  # type: ignore[arg-type]
            created_at=at,
            containers_statuses=[
                self._containers.status_of(one)
                for one in self._pods.containers.of_sandbox(sandbox_id)
            ],
        )
        try:
            sandbox = self._pods.table.find(sandbox_id)
        except SampanError:
            return message  # it went with its containers
        ready = self._pods.sandboxes.is_ready(sandbox)
        message.pod_sandbox_status.CopyFrom(answers.sandbox_status(sandbox, ready))
        return message

    async def _running(self, found: list[PodContainer]) -> list[pb.ContainerStats]:
        return [made for made, _ in await self._read_running(found)]

    async def _read_running(
        self, found: list[PodContainer]
    ) -> list[tuple[pb.ContainerStats, Reading]]:
        """Those that run, but for what a machine that just ends cannot tell any more."""
        made = []
        for one in found:
            if one.container.status.is_running:
                with suppress(Unavailable):
                    reading = await self._pods.readings.of(one)
                    made.append((await self._shown(one, reading), reading))
        return made

    async def _read(self, one: PodContainer) -> pb.ContainerStats:
        return await self._shown(one, await self._pods.readings.of(one))

    async def _shown(self, one: PodContainer, reading: Reading) -> pb.ContainerStats:
        size, inodes = await self._pods.usage.of(one.container.id)
        request = one.notes.request
        mountpoint = self._pods.engine.services.layout.snapshots
        return pb.ContainerStats(
            attributes=pb.ContainerAttributes(
                id=one.container.id,
                metadata=pb.ContainerMetadata(name=request.name, attempt=request.attempt),
                labels=request.labels,
                annotations=request.annotations,
            ),
            cpu=_cpu(reading),
            memory=_memory(reading),
            writable_layer=pb.FilesystemUsage(
                timestamp=reading.time_ns,
                fs_id=pb.FilesystemIdentifier(mountpoint=mountpoint),
                used_bytes=_number(size),
                inodes_used=_number(inodes),
            ),
        )

    async def _sandbox(self, one: Sandbox) -> pb.PodSandboxStats:
        """Sums; the kubelet reads the pod's own cgroup itself."""
        found = await self._read_running(self._pods.containers.of_sandbox(one.id))
        own = [made for made, _ in found]
        counted, processes = await self._members(one, found)
        network = await self._network(one)
        now = time.time_ns()
        return pb.PodSandboxStats(
            attributes=pb.PodSandboxAttributes(
                id=one.id,
                metadata=answers.sandbox_metadata(one.config),
                labels=one.config.labels,
                annotations=one.config.annotations,
            ),
            linux=pb.LinuxPodSandboxStats(
                cpu=pb.CpuUsage(
                    timestamp=now,
                    usage_core_nano_seconds=_number(
                        sum(cpu.usage_core_nano_seconds.value for cpu, _ in counted)
                    ),
                ),
                memory=pb.MemoryUsage(
                    timestamp=now,
                    working_set_bytes=_number(
                        sum(memory.working_set_bytes.value for _, memory in counted)
                    ),
                    usage_bytes=_number(sum(memory.usage_bytes.value for _, memory in counted)),
                    rss_bytes=_number(sum(memory.rss_bytes.value for _, memory in counted)),
                ),
                process=pb.ProcessUsage(timestamp=now, process_count=_number(processes)),
                network=network,
                containers=own,
            ),
        )

    async def _members(
        self, one: Sandbox, found: list[tuple[pb.ContainerStats, Reading]]
    ) -> tuple[list[tuple[pb.CpuUsage, pb.MemoryUsage]], int]:
        """What counts for a sandbox, and its processes: containers and keeper, or the machine,
        which the containers are in."""
        engine, ids = self._pods.engine, [made.attributes.id for made, _ in found]
        counted = [(made.cpu, made.memory) for made, _ in found]
        if one.keeper and self._pods.sandboxes.is_ready(one):
            reading = await engine.stats(one.keeper)
            if self._pods.sandboxes.handler(one).is_machine:
                inside = sum(each.pids_current for _, each in found)  # with threads
                return [(_cpu(reading), _memory(reading))], inside
            ids.append(one.keeper)
            counted.append((_cpu(reading), _memory(reading)))
        return counted, sum([len(await engine.pids(each)) for each in ids])

    async def _network(self, one: Sandbox) -> pb.NetworkUsage | None:
        """The pod's interfaces; None with the node's, or when it was stopped meanwhile."""
        if one.config.namespaces.network is Mode.NODE:
            return None
        path = f"{self._pods.sandboxes.place(one).pinned}/net"
        try:
            found = await self._pods.engine.services.on_disk(gauges.interfaces, path)
        except OSError:
            return None
        usage = [
            pb.NetworkInterfaceUsage(
                name=name,
                rx_bytes=_number(each.rx_bytes),
                rx_errors=_number(each.rx_errors),
                tx_bytes=_number(each.tx_bytes),
                tx_errors=_number(each.tx_errors),
            )
            for name, each in found.items()
        ]
        default = next((each for each in usage if each.name == INTERFACE), None)
        return pb.NetworkUsage(
            timestamp=time.time_ns(),
            default_interface=default,
            interfaces=[each for each in usage if each is not default],
        )


def _number(value: int) -> pb.UInt64Value:
    return pb.UInt64Value(value=max(0, value))


def _cpu(reading: Reading) -> pb.CpuUsage:
    return pb.CpuUsage(
        timestamp=reading.time_ns, usage_core_nano_seconds=_number(reading.cpu_total_ns)
    )


def _memory(reading: Reading) -> pb.MemoryUsage:
    stat = reading.memory_stats
    inactive = _first(stat, "total_inactive_file", "inactive_file")
    return pb.MemoryUsage(
        timestamp=reading.time_ns,
        working_set_bytes=_number(reading.memory_usage - inactive),
        available_bytes=_number(reading.memory_limit - reading.memory_usage + inactive),
        usage_bytes=_number(reading.memory_usage),
        rss_bytes=_number(_first(stat, "total_rss", "anon")),
        page_faults=_number(_first(stat, "total_pgfault", "pgfault")),
        major_page_faults=_number(_first(stat, "total_pgmajfault", "pgmajfault")),
    )


def _first(stat: Mapping[str, int], *names: str) -> int:
    return next((stat[name] for name in names if name in stat), 0)
