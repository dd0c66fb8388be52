"""Metrics of pods and their containers, under cAdvisor's names (`cadvisor.py`)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sampan.api.cri.cadvisor import COMMON, CONTAINER, NETWORK, Seen
from sampan.errors import SampanError
from sampan.pods import gauges
from sampan.pods.model import Mode
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from sampan.api.cri.calls import Stream, Unary
    from sampan.engine.model import NetworkStats
    from sampan.pods.containers import PodContainer
    from sampan.pods.model import Sandbox
    from sampan.pods.service import Pods

_UNLIMITED = 1 << 62


class Metrics:
    """Answers with metrics."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {"ListMetricDescriptors": self.descriptors, "ListPodSandboxMetrics": self.all}

    def streams(self) -> dict[str, Stream]:
        """Method -> answers."""
        return {"StreamPodSandboxMetrics": self.stream}

    async def descriptors(
        self, _request: pb.ListMetricDescriptorsRequest
    ) -> pb.ListMetricDescriptorsResponse:
        """What there is."""
        found = [
            pb.MetricDescriptor(name=kind.name, help=kind.help, label_keys=[*COMMON, *kind.labels])
            for kind in CONTAINER
        ]
        found += [
            pb.MetricDescriptor(name=name, help=text, label_keys=[*COMMON, "interface"])
            for name, (text, _) in NETWORK.items()
        ]
        return pb.ListMetricDescriptorsResponse(descriptors=found)

    async def all(
        self, _request: pb.ListPodSandboxMetricsRequest
    ) -> pb.ListPodSandboxMetricsResponse:
        """Every pod that is ready, with its running containers."""
        found = [await self._pod(one) for one in self._ready()]
        return pb.ListPodSandboxMetricsResponse(pod_metrics=found)

    async def stream(
        self, _request: pb.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[pb.StreamPodSandboxMetricsResponse]:
        """The same, a pod at a time."""
        for one in self._ready():
            metrics = await self._pod(one)
            yield pb.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=[metrics])

    def _ready(self) -> list[Sandbox]:
        return [one for one in self._pods.table if self._pods.sandboxes.is_ready(one)]

    async def _pod(self, one: Sandbox) -> pb.PodSandboxMetrics:
        message = pb.PodSandboxMetrics(pod_sandbox_id=one.id)
        labels = ("POD", one.id, "", one.id, one.config.namespace, one.config.name)
        for name, interface in (await self._interfaces(one)).items():
            message.metrics.extend(_network(labels, name, interface))
        for each in self._pods.containers.of_sandbox(one.id):
            if each.container.status.is_running:
                seen = await self._look(each)
                if seen is not None:
                    made = pb.ContainerMetrics(container_id=each.container.id)
                    made.metrics.extend(_metrics(_labels(one, each), seen))
                    message.container_metrics.append(made)
        return message

    async def _interfaces(self, one: Sandbox) -> Mapping[str, NetworkStats]:
        if one.config.namespaces.network is Mode.NODE:
            return {}
        path = f"{self._pods.sandboxes.place(one).pinned}/net"
        try:
            found: Mapping[str, NetworkStats] = await self._pods.engine.services.on_disk(
                gauges.interfaces, path
            )
        except OSError:
            return {}  # the pod was stopped meanwhile
        return found

    async def _look(self, one: PodContainer) -> Seen | None:
        """None when it has ended meanwhile."""
        engine, own = self._pods.engine, one.container
        try:
            reading = await self._pods.readings.of(one)
            pids = await engine.pids(own.id)
        except SampanError:
            return None
        counted = await engine.services.on_disk(gauges.count, pids, own.state.pid)
        size, _ = await self._pods.usage.of(own.id)
        return Seen(
            reading=reading,
            gauges=counted,
            space=gauges.space(engine.services.layout.snapshots),
            written=size,
            resources=one.notes.request.resources,
            started_at=own.state.started_at,
        )


def _labels(sandbox: Sandbox, one: PodContainer) -> tuple[str, ...]:
    request = one.notes.request
    return (
        request.name,
        one.container.id,
        one.notes.image_name,
        one.container.id,
        sandbox.config.namespace,
        sandbox.config.name,
    )


def _metrics(labels: tuple[str, ...], seen: Seen) -> Iterable[pb.Metric]:
    at = seen.reading.time_ns
    for kind in CONTAINER:
        for more, value in kind.values(seen):
            yield _metric(kind.name, kind.type, (*labels, *more), value, at)


def _network(labels: tuple[str, ...], name: str, found: NetworkStats) -> Iterable[pb.Metric]:
    at = time.time_ns()
    for metric, (_, field) in NETWORK.items():
        yield _metric(metric, pb.COUNTER, (*labels, name), getattr(found, field), at)


def _metric(name: str, kind: int, labels: tuple[str, ...], value: int, at: int) -> pb.Metric:
    return pb.Metric(
        name=name,
        timestamp=at,
        metric_type=kind,  # type: ignore[arg-type]
        label_values=labels,
        value=pb.UInt64Value(value=0 if value > _UNLIMITED else max(0, value)),
    )
