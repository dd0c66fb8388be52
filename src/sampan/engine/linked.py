"""What a start has to do with links, and with containers that share a network.

On the default bridge nobody is found by a name: whom a container is linked to stands in its hosts
file, and in its environment. So the other one must run, and when it is started again, at another
address, the files of all that are linked to it are written anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.engine import etcfiles, joining, links
from sampan.errors import ContainerNotFound, StartFailed
from sampan.network.model import BRIDGE

if TYPE_CHECKING:
    from sampan.engine.model import Container
    from sampan.engine.services import Services


def check(services: Services, container: Container) -> None:
    """Raises StartFailed, in Docker's words, where a link leads to who does not run."""
    for name, alias in links.of(container):
        other = services.containers.find(name).container
        if not other.status.is_running:
            raise StartFailed(
                f"Cannot link to a non running container: /{other.name} "
                f"AS /{container.name}/{alias}"
            )


def tell(services: Services, container: Container) -> None:
    """Who is linked to a container finds it where it is now."""
    if BRIDGE not in container.networks:
        return
    for entry in services.containers:
        other = entry.container
        if not other.host.links or not other.status.is_running:
            continue
        if any(name == container.name for name, _ in links.of(other)):
            write_names(services, other)


def write_names(services: Services, container: Container) -> None:
    """Write a container's hosts file and host name as they are now."""
    networks = services.networks
    etcfiles.write_names(
        services.layout.container(container.id),
        container,
        networks.endpoints(container.id),
        networks.host_address(container.id),
        networks.linked(container),
    )


def find_owner(services: Services, container: Container) -> Container:
    """A container of the mode `container:NAME` that was made before the one that it names, with
    that one's id; any other as it is.

    Raises:
        StartFailed: there is none still, or it is the container itself.
    """
    mode = container.host.network_mode
    if not mode.startswith(joining.CONTAINER):
        return container
    try:
        target = services.containers.find(mode.partition(":")[2]).container
    except ContainerNotFound as error:
        raise StartFailed(f"joining network namespace of container: {error}") from error
    if target.id == container.id:
        raise StartFailed("cannot join own network namespace")
    if mode == joining.CONTAINER + target.id:
        return container
    return joining.shared_with(container, target)


def network_owner(services: Services, container: Container) -> Container:
    """Whose network a container of the mode `container:ID` is in, at the end of the chain.

    Raises:
        ContainerNotFound: there is no end: one is gone, or they name each other.
    """
    for _ in services.containers:
        mode = container.host.network_mode
        if not mode.startswith(joining.CONTAINER):
            return container
        container = services.containers.find(mode.partition(":")[2]).container
    raise ContainerNotFound("containers share each other's network")
