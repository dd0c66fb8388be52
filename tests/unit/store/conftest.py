"""A store on a fresh directory."""

from __future__ import annotations

import pytest

from sampan.store.database import Database
from sampan.store.layout import Layout


@pytest.fixture
def layout(tmp_path):
    layout = Layout(str(tmp_path / "root"), str(tmp_path / "state"))
    layout.create()
    return layout


@pytest.fixture
def db(layout):
    db = Database.open(layout.database)
    yield db
    db.close_now()
