"""`events`: what happens, as it happens."""

from __future__ import annotations

from sampan.cli.moments import parse_moment
from sampan.cli.session import Command, Failed, Session
from sampan.cli.tables import parse_filters
from sampan.cli.units import stdcopy_time
from sampan.client import calls
from sampan.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values


def line(event: dict[str, Any]) -> str:
    """An event in words."""
    moment = event.get("timeNano") or event["time"] * 10**9
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    inner = ", ".join(f"{name}={attributes[name]}" for name in sorted(attributes))
    text = f"{stdcopy_time(moment // 10**9, moment % 10**9)} {event['Type']} {event['Action']}"
    return f"{text} {actor.get('ID', '')}" + (f" ({inner})" if inner else "")


class _Attributes(dict[str, str]):
    """An event has those of its action; of others, a template says what docker's says."""

    def __missing__(self, name: str) -> str:
        return "<no value>"


def _row(event: dict[str, Any]) -> dict[str, Any]:
    """An event as templates see it."""
    actor = event.get("Actor") or {}
    actor = {**actor, "Attributes": _Attributes(actor.get("Attributes") or {})}
    return {"ID": event.get("id", ""), **event, "Actor": actor}


def events(session: Session, flags: Values, _: list[str]) -> int:
    layout = flags.text("format")
    call = calls.events(
        parse_moment(flags.text("since")),
        parse_moment(flags.text("until")),
        parse_filters(flags.many("filter")),
    )
    template = None
    if layout not in ("", "json"):
        from sampan.cli.template import Template

        try:
            template = Template(layout)
        except ValueError as error:
            raise Failed(f"template parsing error: template: :1: {error}", 64) from None
    for event in session.client.open(call).lines():
        if template is None:
            session.out(encode(event) if layout else line(event))
            continue
        try:
            session.out(template.render(_row(event)))
        except ValueError as error:
            raise Failed(f"template: :1: {error}") from None
    return 0


EVENTS = Command(
    events,
    "[OPTIONS]",
    "Get real time events from the server",
    """\
  -f, --filter filter   Filter output based on conditions provided
      --format string   Format output using a custom template:
                        'json':             Print in JSON format
                        'TEMPLATE':         Print output using the given
                        Go template.
      --since string    Show all events created since timestamp
      --until string    Stream events until this timestamp
""",
    most=0,
    names="system events, events",
)
