"""ImageService: list, status, pull, remove, and how much room images take.

One identity everywhere: the id of an image is the digest of its configuration, and what a pull
answers, what a container says it runs, and what a list shows are that same text. Names are whole
(`docker.io/library/busybox:latest`), as a kubelet compares them.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from sampan.errors import ImageNotFound, InvalidArgument
from sampan.pods.containers import canonical
from sampan.registry.credentials import Credentials
from sampan.wire.cri import api_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampan.api.cri.calls import Stream, Unary
    from sampan.images.model import Image
    from sampan.pods.service import Pods

MAX_ITEMS = 1000


class Images:
    """Answers about images."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._images = pods.engine.images

    def table(self) -> dict[str, Unary]:
        """Method -> answer."""
        return {
            "ListImages": self.all,
            "ImageStatus": self.status,
            "PullImage": self.pull,
            "RemoveImage": self.remove,
            "ImageFsInfo": self.fs_info,
        }

    def streams(self) -> dict[str, Stream]:
        """Method -> answers."""
        return {"StreamImages": self.stream}

    async def all(self, request: pb.ListImagesRequest) -> pb.ListImagesResponse:
        """Every image, or the one that the filter names."""
        return pb.ListImagesResponse(images=await self._matching(request.filter))

    async def stream(
        self, request: pb.StreamImagesRequest
    ) -> AsyncIterator[pb.StreamImagesResponse]:
        """The same list in several messages."""
        items = await self._matching(request.filter)
        for start in range(0, len(items), MAX_ITEMS):
            yield pb.StreamImagesResponse(images=items[start : start + MAX_ITEMS])

    async def _matching(self, wanted: pb.ImageFilter) -> list[pb.Image]:
        if not wanted.image.image:
            return [self._image(image) for image in await self._images.list()]
        found = await self._find(wanted.image.image)
        return [] if found is None else [self._image(found)]

    async def status(self, request: pb.ImageStatusRequest) -> pb.ImageStatusResponse:
        """One image; one that is not here is no error."""
        if not request.image.image:
            raise InvalidArgument("image is missing")
        found = await self._find(request.image.image)
        if found is None:
            return pb.ImageStatusResponse()
        info = {"info": _info(found)} if request.verbose else {}
        return pb.ImageStatusResponse(image=self._image(found), info=info)

    async def pull(self, request: pb.PullImageRequest) -> pb.PullImageResponse:
        """Bring an image here; its id."""
        if not request.image.image:
            raise InvalidArgument("image is missing")
        auth = credentials(request.auth) if request.HasField("auth") else None
        image = await self._images.pull(request.image.image, auth=auth)
        return pb.PullImageResponse(image_ref=image.id)

    async def remove(self, request: pb.RemoveImageRequest) -> pb.RemoveImageResponse:
        """Remove an image with all its names; one that is not here is no error."""
        if not request.image.image:
            raise InvalidArgument("image is missing")
        found = await self._find(request.image.image)
        if found is not None:
            try:
                await self._images.remove(found.id, force=True)
            except ImageNotFound:
                pass  # somebody was quicker
        return pb.RemoveImageResponse()

    async def fs_info(self, _request: pb.ImageFsInfoRequest) -> pb.ImageFsInfoResponse:
        """What layers take, and what containers have written."""
        images, containers = await self._pods.usage.read()
        now = time.time_ns()
        mountpoint = self._pods.engine.services.layout.snapshots

        def usage(size: int, inodes: int) -> pb.FilesystemUsage:
            return pb.FilesystemUsage(
                timestamp=now,
                fs_id=pb.FilesystemIdentifier(mountpoint=mountpoint),
                used_bytes=pb.UInt64Value(value=size),
                inodes_used=pb.UInt64Value(value=inodes),
            )

        return pb.ImageFsInfoResponse(
            image_filesystems=[usage(*images)], container_filesystems=[usage(*containers)]
        )

    async def _find(self, text: str) -> Image | None:
        try:
            return await self._images.get(text)
        except ImageNotFound:
            return None

    def _image(self, image: Image) -> pb.Image:
        uid, username = user_of(image.config.config.user)
        return pb.Image(
            id=image.id,
            repo_tags=[canonical(name) for name in image.names],
            repo_digests=[canonical(name) for name in image.digests],
            size=max(1, image.size),
            uid=None if uid is None else pb.Int64Value(value=uid),
            username=username,
            spec=pb.ImageSpec(image=image.id),
            pinned=self._pods.is_pinned(image),
        )


def user_of(text: str) -> tuple[int | None, str]:
    """(uid, name) of an image's user, of which one is set: `1000:1000`, `www-data`, ""."""
    name = text.partition(":")[0]
    if not name:
        return 0, ""
    if name.isascii() and name.isdigit() and len(name) <= 10:
        return int(name), ""
    return None, name


def credentials(auth: pb.AuthConfig) -> Credentials | None:
    """What a kubelet knows of the registry.

    Raises:
        InvalidArgument: `auth` is not base64 of `user:password`.
    """
    username, password = auth.username, auth.password
    if auth.auth and not username:
        username, password = _decoded(auth.auth)
    made = Credentials(
        username=username,
        password=password,
        identity_token=auth.identity_token,
        registry_token=auth.registry_token,
    )
    return made if made != Credentials() else None


def _decoded(text: str) -> tuple[str, str]:
    import base64
    import binascii

    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = user = password = ""
    if not colon:
        raise InvalidArgument("registry credentials: auth is not base64 of user:password")
    return user, password.strip("\0")


def _info(image: Image) -> str:
    """What `crictl inspecti` shows besides the status."""
    content = {
        "chainID": image.chain_id,
        "imageSpec": {"config": image.config.config.document()},
        "layers": [str(layer.digest) for layer in image.layers],
    }
    return json.dumps(content)
