"""What builds of an engine that was killed may have left, and whether anything is there.

It is asked at each start, so nothing of the builder itself is imported for the question.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from sampan.builder.secrets import Vault

if TYPE_CHECKING:
    from sampan.engine.engine import Engine

OWNER: Final = "builder"
"""Of the containers that commands run in."""
CLONE_PREFIX: Final = "git-"
"""Of the directories that repositories are fetched into."""


def place(engine: Engine) -> str:
    """The builder's directory of an engine; it comes with the first build."""
    return os.path.join(engine.services.layout.root, "builder")


def are_there(engine: Engine) -> bool:
    """Whether a container, a clone or a file of a secret is left."""
    if engine.list(all=True, owner=OWNER) or Vault(engine.services.layout.state).has_files():
        return True
    try:
        names = os.listdir(place(engine))
    except FileNotFoundError:
        return False
    return any(name.startswith(CLONE_PREFIX) for name in names)
