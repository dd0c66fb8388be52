"""All of pods in one object, as the edge sees it: `Pods.open(engine, settings)`, `aclose()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.engine import runtimes
from sampan.pods.containers import Containers
from sampan.pods.execs import Execs
from sampan.pods.handlers import Handlers
from sampan.pods.model import KEEPER, OWNER, Phase
from sampan.pods.network import Network
from sampan.pods.ports import Ports
from sampan.pods.readings import Readings
from sampan.pods.sandboxes import Sandboxes
from sampan.pods.settings import PodSettings
from sampan.pods.table import Table
from sampan.pods.usage import Usage
from sampan.vm import finding

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from sampan.engine.engine import Engine
    from sampan.images.model import Image


class Pods:
    """Sandboxes and their containers. Made by `open` only."""

    def __init__(
        self,
        engine: Engine,
        table: Table,
        network: Network,
        handlers: Handlers,
        settings: PodSettings,
    ) -> None:
        """For `open` only."""
        self.settings = settings
        self.engine = engine
        self.table = table
        self.network = network
        self.handlers = handlers
        self.execs = Execs(engine)
        self.usage = Usage(engine)
        self.containers = Containers(engine, table)
        self.sandboxes = Sandboxes(engine, table, network, handlers, self.containers.end_all)
        self.containers.sandboxes = self.sandboxes
        self.ports = Ports(table, self.sandboxes)
        self.readings = Readings(engine, table, self.sandboxes)

    @classmethod
    async def open(cls, engine: Engine, settings: PodSettings | None = None) -> Self:
        """Read what is there, and finish what an earlier engine left half done."""
        settings = settings or PodSettings()
        services = engine.services
        table = Table(services.db)
        table.load()
        network = Network(
            settings.cni_config,
            settings.cni_plugins,
            services.layout.cni_of_pods,
            services.networks,
            settings.fallback_network,
        )
        programs = runtimes.find(engine.config.runtimes)
        handlers = Handlers(programs, _machine(engine, settings))
        pods = cls(engine, table, network, handlers, settings)
        pods.sandboxes.pause_image = settings.pause_image
        engine.own(OWNER, pods.containers.spec)
        engine.own(
            KEEPER, lambda container, cgroup: dict(pods.sandboxes.keeper_spec(container.id, cgroup))
        )
        pods.containers.load()
        await pods.containers.thaw()
        await pods.sandboxes.settle()
        return pods

    def reload(self, settings: PodSettings, programs: Mapping[str, tuple[str, ...]]) -> None:
        """Other settings, for what is made from now on."""
        self.settings = settings
        self.sandboxes.pause_image = settings.pause_image
        self.handlers.set_programs(programs, _machine(self.engine, settings))
        self.network.set_places(
            settings.cni_config, settings.cni_plugins, settings.fallback_network
        )

    def is_pinned(self, image: Image) -> bool:
        """Whether an image must not be collected; we need none but a pause image that was asked
        for."""
        pinned = self.settings.pinned | {self.settings.pause_image}
        return bool(pinned.intersection(image.names))

    @property
    def is_idle(self) -> bool:
        """Whether no sandbox is ready."""
        return not any(sandbox.phase is Phase.READY for sandbox in self.table)


def _machine(engine: Engine, settings: PodSettings) -> tuple[str, ...]:
    """What makes pods with a kernel of their own, () where it cannot be had."""
    return finding.find(
        settings.vm_kernel,
        settings.vm_modules,
        memory=settings.vm_memory,
        accelerator=settings.vm_accelerator,
        cache=f"{engine.config.root}/vm",
    )
