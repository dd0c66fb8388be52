"""What the launcher's short way of the small verbs reads (`quick.sh` has the form)."""

from __future__ import annotations

from sampan.runtime.description import describe_as
from sampan.runtime.state import StateDirectory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write(directory: StateDirectory, state: dict[str, Any]) -> None:
    """Write the file, as the last thing of a creation; none where a line could be misread."""
    from sampan.jsontext import encode

    config = state["config"]
    paths = list(dict.fromkeys(state["cgroup_paths"].values()))
    spaces = (config.get("linux") or {}).get("namespaces") or []
    owns_pids = any(one["type"] == "pid" and not one.get("path") for one in spaces)
    unusual = "hooks" if config.get("hooks") else "mounts" if state.get("root_mount") else ""
    words = [
        str(state["pid"]),
        str(state["start_time"]),
        unusual or ("scope" if state.get("scope") else "plain"),
        "own" if owns_pids else "shared",
        _freezer(state["cgroup_paths"]),
    ]
    lines = [" ".join(words), *paths]
    if any("\n" in line or "\\" in line for line in lines) or not state["start_time"]:
        return
    answer = encode(describe_as(directory, state, "running"), "  ")
    directory.save_quick("\n".join([*lines, "", answer, ""]))


def _freezer(paths: dict[str, str]) -> str:
    if "freezer" in paths:
        return f"{paths['freezer']}/freezer.state"
    return f"{paths['']}/cgroup.freeze" if "" in paths else "-"
