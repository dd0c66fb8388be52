"""`system check` and `system gc`: the store looked after."""

from __future__ import annotations

from sampan.cli.session import Command, Session
from sampan.cli.units import decimal_size
from sampan.client import calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values


def check(session: Session, flags: Values, _: list[str]) -> int:
    found = session.call(calls.check(repair=flags.on("repair")))
    left = 0
    for one in found["Problems"]:
        left += not one["Mended"]
        mended = " (mended)" if one["Mended"] else ""
        session.out(f"{one['Kind']}: {one['Subject']}: {one['Detail']}{mended}")
    size = decimal_size(found["Size"])
    session.out(
        f"Checked {found['Images']} image names, {found['Blobs']} blobs of {size} and "
        f"{found['Snapshots']} snapshots: {len(found['Problems']) or 'no'} problems"
    )
    return 1 if left else 0


def collect(session: Session, flags: Values, _: list[str]) -> int:
    call = calls.collect(flags.text("unused-for"), flags.text("max-size"), flags.text("min-free"))
    done = session.call(call)
    for item in done.get("ImagesDeleted") or ():
        for word in ("Untagged", "Deleted"):
            if item.get(word):
                session.out(f"{word}: {item[word]}")
    session.out(f"Total reclaimed space: {decimal_size(done.get('SpaceReclaimed') or 0)}")
    return 0


CHECK = Command(
    check,
    "[OPTIONS]",
    "Check every blob, layer and image of the store",
    "      --repair   Mend what can be mended\n",
    most=0,
)
GC = Command(
    collect,
    "[OPTIONS]",
    "Remove what nothing needs, and images by a policy",
    """\
      --max-size string     Remove images, those not used for longest first,
                            until all have at most this size (like 20g)
      --min-free string     The same until this much of the disk is free
      --unused-for string   Remove images not used for this time (like 7d)
""",
    most=0,
)
