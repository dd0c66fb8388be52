"""Counters of a container in Docker's shape: pure functions.

A sample on the wire holds two readings, because a share of the processors is a difference. The
first sample of a stream has no earlier reading, and says so with zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from sampan.api.docker import ages
from sampan.wire import stats as wire

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.engine import model


def sample(now: model.Stats, before: model.Stats | None) -> wire.Stats:
    """One sample from two readings."""
    if not now.time_ns or not now.pids_current:
        return wire.Stats(name="/" + now.name, id=now.id)
    return wire.Stats(
        name="/" + now.name,
        id=now.id,
        read=ages.rfc3339(now.time_ns),
        preread=ages.rfc3339(before.time_ns if before else 0),
        pids_stats=wire.Pids(current=now.pids_current, limit=now.pids_limit or UNSET),
        blkio_stats=wire.Block(
            io_service_bytes_recursive=_block(now.blkio_bytes),
            io_serviced_recursive=_block(now.blkio_ops),
        ),
        cpu_stats=_cpu(now),
        precpu_stats=_cpu(before) if before else wire.Cpu(),
        memory_stats=wire.Memory(
            usage=now.memory_usage,
            max_usage=now.memory_max_usage or UNSET,
            stats=dict(now.memory_stats),
            failcnt=now.memory_failcnt or UNSET,
            limit=now.memory_limit,
        ),
        networks=_networks(now) if now.networks else UNSET,
    )


def _cpu(reading: model.Stats) -> wire.Cpu:
    return wire.Cpu(
        cpu_usage=wire.CpuUsage(
            total_usage=reading.cpu_total_ns,
            percpu_usage=list(reading.cpu_percpu_ns) if reading.cpu_percpu_ns else UNSET,
            usage_in_kernelmode=reading.cpu_system_ns,
            usage_in_usermode=reading.cpu_user_ns,
        ),
        system_cpu_usage=reading.host_cpu_ns,
        online_cpus=reading.online_cpus,
        throttling_data=wire.Throttling(
            periods=reading.cpu_periods,
            throttled_periods=reading.cpu_throttled_periods,
            throttled_time=reading.cpu_throttled_ns,
        ),
    )


def _block(entries: Iterable[model.BlkioEntry]) -> list[wire.BlockEntry]:
    return [wire.BlockEntry(major=e.major, minor=e.minor, op=e.op, value=e.value) for e in entries]


def _networks(reading: model.Stats) -> dict[str, wire.Interface]:
    return {
        name: wire.Interface(
            rx_bytes=n.rx_bytes,
            rx_packets=n.rx_packets,
            rx_errors=n.rx_errors,
            rx_dropped=n.rx_dropped,
            tx_bytes=n.tx_bytes,
            tx_packets=n.tx_packets,
            tx_errors=n.tx_errors,
            tx_dropped=n.tx_dropped,
        )
        for name, n in reading.networks.items()
    }
