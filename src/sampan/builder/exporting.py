"""The end of a build: its last state becomes an image with a name.

With `squash`, everything that was built becomes one layer above the base's: the difference of two
trees, in which files that came and went are not.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from sampan.builder.files.service import open_tree
from sampan.spec.image import History, ImageConfig

if TYPE_CHECKING:
    from sampan.builder.cache import Cache
    from sampan.builder.files.service import FileWork
    from sampan.builder.model import State
    from sampan.engine.engine import Engine
    from sampan.images.diffing import CommittedLayer
    from sampan.images.model import Image
    from sampan.spec.reference import Reference


class Exporter:
    """Makes images of states."""

    def __init__(self, engine: Engine, cache: Cache, files: FileWork) -> None:
        self._engine = engine
        self._files = files
        self._cache = cache

    async def image(
        self,
        state: State,
        tags: list[Reference],
        lease: str,
        *,
        squash: bool = False,
        annotations: dict[str, str] | None = None,
    ) -> Image:
        """The image of a state, under its names."""
        if squash and state.results:
            layers, history = await self._squashed(state, lease)
        else:
            layers, history = await self._cache.layers(state, lease), state.history
        config = ImageConfig(
            architecture=state.platform.architecture,
            os=state.platform.os,
            variant=state.platform.variant,
            created=state.created,
            author=state.author,
            config=state.config,
            history=history,
        )
        images = self._engine.images
        image = await images.create_image(
            config, layers, tags[0] if tags else None, annotations=annotations, lease=lease
        )
        for tag in tags[1:]:
            await images.tag(str(image.id), tag)
        return image

    async def _squashed(
        self, state: State, lease: str
    ) -> tuple[list[CommittedLayer], tuple[History, ...]]:
        """One layer above the base, and the history with what was built as steps without one."""
        snapshots = self._engine.services.snapshots
        tree = await self._cache.tree(state)
        assert tree is not None
        with ExitStack() as undo:
            fds = [open_tree(tree, undo)]
            if state.base:
                fds.append(open_tree(snapshots.tree(state.base), undo))
            made = await self._engine.images.commit_written(
                lambda out: self._files.difference(out, fds, state.made_s), lease=lease
            )
        count = len(state.base_layers)
        history: list[History] = []
        for line in state.history:
            is_base = count > 0 or line.empty_layer
            count -= not line.empty_layer
            history.append(line if is_base else replace(line, empty_layer=True))
        what = f"squash of {len(state.results)} layers"
        history.append(History(created=state.created, created_by=what, comment="sampan"))
        return [*state.base_layers, made], tuple(history)
