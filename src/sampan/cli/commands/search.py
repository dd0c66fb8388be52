"""`search`: what a registry has by a word."""

from __future__ import annotations

from sampan.cli.session import Command, Session
from sampan.cli.tables import parse_filters, show
from sampan.client import calls
from sampan.client.credentials import header_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

HEADERS = {
    "Description": "DESCRIPTION",
    "IsAutomated": "AUTOMATED",
    "IsOfficial": "OFFICIAL",
    "Name": "NAME",
    "StarCount": "STARS",
}
_LONGEST = 45


def search(session: Session, flags: Values, words: list[str]) -> int:
    call = calls.search(
        words[0],
        flags.number("limit"),
        parse_filters(flags.many("filter")),
        header_for(words[0]),
    )
    rows = []
    for one in session.call(call) or ():
        text = " ".join(one["description"].split())
        if len(text) > _LONGEST and not flags.on("no-trunc"):
            text = text[: _LONGEST - 1] + "…"
        rows.append(
            {
                "Description": text,
                "IsAutomated": "[OK]" if one["is_automated"] else "",
                "IsOfficial": "[OK]" if one["is_official"] else "",
                "Name": one["name"],
                "StarCount": str(one["star_count"]),
            }
        )
    show(session, rows, "Name Description StarCount IsOfficial", HEADERS, flags.text("format"))
    return 0


SEARCH = Command(
    search,
    "[OPTIONS] TERM",
    "Search Docker Hub, or the registry that TERM begins with, for images",
    """\
  -f, --filter filter   Filter output based on conditions provided
      --format string   Pretty-print search using a Go template
      --limit int       Max number of search results
      --no-trunc        Don't truncate output
""",
    least=1,
    most=1,
)
