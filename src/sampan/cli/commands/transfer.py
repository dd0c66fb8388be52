"""`pull`, `push`, `import`: images come and go."""

from __future__ import annotations

import os

from sampan.cli.output import pieces_of
from sampan.cli.progress import show
from sampan.cli.session import Command, Failed, Session
from sampan.client import calls
from sampan.client.credentials import header_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.flags import Values


def canonical(image: str) -> str:
    """An image's whole name, as the last line of a pull has it."""
    name, tag = calls.split_tag(image)
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not ("." in first or ":" in first or first == "localhost"):
        name = f"docker.io/{name}"
    return f"{name}@{tag}" if "@" in image else f"{name}:{tag}"


def _check(image: str) -> None:
    """Refuse here what no registry can have, as docker's client does."""
    name, _ = calls.split_tag(image)
    path = name.partition("/")[2] if _has_registry(name) else name
    if path != path.lower():
        full = canonical(name).rpartition(":")[0].removeprefix("docker.io/")
        raise Failed(f"invalid reference format: repository name ({full}) must be lowercase")


def _has_registry(name: str) -> bool:
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def pull(session: Session, flags: Values, names: list[str]) -> int:
    image, quiet = names[0], flags.on("quiet")
    _check(image)
    if flags.on("all-tags"):
        return _each_tag(session, flags, image, _remote_tags, _pull)
    if not quiet and calls.split_tag(image) == (image, "latest"):
        session.out("Using default tag: latest")
    _pull(session, flags, image)
    session.out(canonical(image))
    return 0


def _pull(session: Session, flags: Values, image: str) -> None:
    every = flags.on("all-platforms")
    if every and flags.text("platform"):
        raise Failed("--all-platforms and --platform are mutually exclusive")
    call = calls.pull(image, flags.text("platform"), header_for(image), every_platform=every)
    show(session.client.open(call).lines(), 1, quiet=flags.on("quiet"))


def push(session: Session, flags: Values, names: list[str]) -> int:
    image, quiet = names[0], flags.on("quiet")
    if flags.on("all-tags"):
        return _each_tag(session, flags, image, _local_tags, _push)
    if not quiet and calls.split_tag(image) == (image, "latest"):
        session.out("Using default tag: latest")
    _push(session, flags, image)
    if quiet:
        session.out(canonical(image))
    return 0


def _push(session: Session, flags: Values, image: str) -> None:
    call = calls.push(image, header_for(image), flags.text("platform"))
    show(session.client.open(call).lines(), 1, quiet=flags.on("quiet"))


def _each_tag(
    session: Session,
    flags: Values,
    image: str,
    tags_of: Callable[[Session, str], list[str]],
    action: Callable[[Session, Values, str], None],
) -> int:
    """Do it to every tag of a name that has none itself."""
    if calls.split_tag(image) != (image, "latest"):
        raise Failed("tag can't be used with --all-tags/-a")
    tags = tags_of(session, image)
    if not tags:
        raise Failed(f"{image} has no tags")
    for tag in tags:
        action(session, flags, f"{image}:{tag}")
    session.out(canonical(image).removesuffix(":latest"))
    return 0


def _remote_tags(session: Session, image: str) -> list[str]:
    return list(session.call(calls.remote_tags(image, header_for(image)))["Tags"])


def _local_tags(session: Session, image: str) -> list[str]:
    found = session.call(calls.images(filters={"reference": [image]}))
    names = [calls.split_tag(name) for one in found for name in one.get("RepoTags") or ()]
    return sorted(tag for name, tag in names if canonical(name) == canonical(image))


def import_image(session: Session, flags: Values, words: list[str]) -> int:
    path = words[0]
    if path != "-" and not os.path.isfile(path):
        raise Failed(f"open {path}: no such file or directory")
    call = calls.import_image(
        pieces_of("" if path == "-" else path),
        words[1] if len(words) > 1 else "",
        message=flags.text("message"),
        changes=flags.many("change"),
        platform=flags.text("platform"),
    )
    show(session.client.open(call).lines(), 1)
    return 0


PULL = Command(
    pull,
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    """\
      --all-platforms     Download every platform of the image
  -a, --all-tags          Download all tagged images in the repository
      --platform string   Set platform if server is multi-platform capable
  -q, --quiet             Suppress verbose output
""",
    least=1,
    most=1,
    names="image pull, pull",
)
PUSH = Command(
    push,
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    """\
  -a, --all-tags          Push all tags of an image to the repository
      --platform string   Push only the given platform of the image
  -q, --quiet             Suppress verbose output
""",
    least=1,
    most=1,
    names="image push, push",
)
IMPORT = Command(
    import_image,
    "[OPTIONS] file|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    """\
  -c, --change list       Apply Dockerfile instruction to the created image
  -m, --message string    Set commit message for imported image
      --platform string   Set platform if server is multi-platform capable
""",
    least=1,
    most=2,
    names="image import, import",
)
