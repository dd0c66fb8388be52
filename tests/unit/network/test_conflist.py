"""CNI configuration lists: what is read, and what is refused."""

import json

import pytest

from sampan.errors import InvalidArgument
from sampan.network import cni

LIST = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}


def test_a_directory_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "20-b.conflist").write_text(json.dumps(LIST))
    (tmp_path / "10-a.conf").write_text('{"cniVersion": "0.4.0", "name": "one", "type": "ptp"}')
    (tmp_path / "README").write_text("not a configuration")
    found = cni.load_conflists(str(tmp_path))
    assert [conf.name for conf in found] == ["one", "net"]
    assert [plugin["type"] for plugin in found[1].plugins] == ["bridge", "portmap"]
    assert found[0].version == "0.4.0"
    assert found[0].path.endswith("10-a.conf")


def test_no_directory_is_no_configuration(tmp_path):
    assert cni.load_conflists(str(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"name": "../x"}, "name"),
        ({"name": ""}, "name"),
        ({"plugins": []}, "no plugins"),
        ({"plugins": [{"type": "../../bin/sh"}]}, "type"),
        ({"plugins": ["bridge"]}, "not a JSON object"),
        ({"cniVersion": "9.9.9"}, "newer"),
        ({"cniVersion": "new"}, "no version"),
    ],
)
def test_a_wrong_list_is_refused(change, part):
    with pytest.raises(InvalidArgument, match=part):
        cni.parse(json.dumps({**LIST, **change}))


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "x.conf").write_text("{")
    with pytest.raises(InvalidArgument, match=r"x\.conf"):
        cni.load_conflists(str(tmp_path))


def test_an_old_result_is_understood():
    result = cni.parse_result({"ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1"}})
    assert result.ips == ("10.0.0.2/24",)
    assert result.gateways == ("10.0.0.1",)
