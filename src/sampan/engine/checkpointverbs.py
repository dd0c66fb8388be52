"""The engine's verbs for checkpoints; `Engine` has them beside the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.engine.build import Parts
    from sampan.engine.containers import Entry


class CheckpointVerbs:
    """Write down, list, remove, start from."""

    _parts: Parts

    def _find(self, ref: str) -> Entry:
        return self._parts.services.containers.find(ref)

    async def start_from(self, ref: str, checkpoint: str, directory: str = "") -> None:
        """Start a container where it was when a checkpoint was made.

        Raises:
            NotFound: there is no such checkpoint. StartFailed: CRIU cannot; its own words.
        """
        await self._parts.checkpoints.start(self._find(ref), checkpoint, directory)

    async def checkpoint(
        self, ref: str, name: str, directory: str = "", *, leave_running: bool = False
    ) -> None:
        """Write a container's processes down, and end them unless they are to go on.

        Raises:
            Conflict: it does not run, or the name is taken. InvalidArgument: it has a terminal.
            Unavailable: CRIU is not there, or cannot; its own words.
        """
        made = self._parts.checkpoints
        await made.create(self._find(ref), name, directory, leave_running=leave_running)

    async def dump(self, ref: str, directory: str) -> dict[str, Any]:
        """Write down a container that goes on running: its processes to the directory `checkpoint`
        below the existing `directory`, what its files were changed to as the tar of a layer to
        `rootfs-diff.tar`, a moment later. Its runtime does it. Returns its OCI configuration.

        Raises:
            Conflict: it does not run. InvalidArgument: it has a terminal.
            Unavailable: CRIU is not there, or cannot; the runtime's own words.
        """
        entry = self._find(ref)
        specification = await self._parts.checkpoints.dump(entry, f"{directory}/checkpoint")
        await self._parts.committer.write_difference(entry, f"{directory}/rootfs-diff.tar")
        return specification

    def checkpoints(self, ref: str, directory: str = "") -> Sequence[str]:
        """The names of a container's checkpoints."""
        return self._parts.checkpoints.list(self._find(ref), directory)

    async def remove_checkpoint(self, ref: str, name: str, directory: str = "") -> None:
        """Remove one. Raises NotFound."""
        await self._parts.checkpoints.remove(self._find(ref), name, directory)
