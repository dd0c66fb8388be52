"""Settings: who wins, and that a wrong one names itself."""

from __future__ import annotations

import pytest

from sampan.daemon import config
from sampan.errors import InvalidArgument, NotImplementedHere, PermissionDenied


@pytest.fixture
def file(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return write


def load(path, environ=None, user=0, **flags):
    return config.load({"config": path, **flags}, environ or {}, user)


def test_defaults(file):
    settings = load(file(""))
    assert (settings.engine.root, settings.engine.state) == ("/var/lib/sampan", "/run/sampan")
    assert settings.socket == "/run/sampan/docker.sock"
    assert (settings.log_level, settings.log_format, settings.idle_exit) == ("info", "text", 0)


def test_flags_win_over_environment_over_file(file):
    path = file('root = "/file"\nstate = "/file"\nhost = "unix:///file"\nlog_level = "debug"\n')
    environ = {"SAMPAN_ROOT": "/environment", "SAMPAN_HOST": "unix:///environment"}
    assert load(path).engine.root == "/file"
    settings = load(path, environ, log_level="error")
    assert settings.engine.root == "/environment"
    assert settings.engine.state == "/file"
    assert settings.socket == "/environment"
    assert settings.log_level == "error"
    settings = load(path, environ, root="/flag", host="unix:///flag")
    assert (settings.engine.root, settings.socket) == ("/flag", "/flag")


def test_file_is_named_by_the_environment(file):
    path = file("stop_timeout = 3\n")
    assert config.load({}, {"SAMPAN_CONFIG": path}, 0).engine.stop_timeout == 3
    with pytest.raises(InvalidArgument, match="no such file"):
        config.load({}, {"SAMPAN_CONFIG": "/nosuch.toml"}, 0)
    with pytest.raises(InvalidArgument, match="/other"):
        config.load({"config": "/other.toml"}, {"SAMPAN_CONFIG": path}, 0)


def test_places_without_privilege(file):
    settings = load(file(""), {"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}, user=7)
    assert settings.engine.root == "/home/u/.local/share/sampan"
    assert settings.socket == "/run/user/7/sampan/docker.sock"


def test_keys_of_the_engine_reach_it(file):
    settings = load(file('stop_timeout = 3\ninsecure_registries = ["r.example:5000"]\n'))
    assert settings.engine.stop_timeout == 3
    assert settings.engine.insecure_registries == ("r.example:5000",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stop_timout = 3", "unknown key 'stop_timout'"),
        ("stop_timeout = '3'", "stop_timeout must be int"),
        ("idle_exit = 'soon'", "idle_exit must be int"),
        ("idle_exit = true", "idle_exit must be int"),
        ("idle_exit = -1", "idle_exit: -1 is negative"),
        ("log_level = 'loud'", "log_level: 'loud' is not one of debug, info"),
        ("log_format = 'xml'", "log_format: 'xml'"),
        ("fault = 'x'", "unknown key 'fault'"),
        ("a = [", "config.toml: "),
        ("host = 'unix://relative'", "the path must be absolute"),
        (f"host = 'unix:///{'x' * 200}'", "longer than a socket's may be"),
    ],
)
def test_a_wrong_setting_names_itself(file, text, sentence):
    with pytest.raises(InvalidArgument, match=sentence.replace("'", ".")):
        load(file(text))


def test_only_unix_sockets(file):
    with pytest.raises(NotImplementedHere, match="only unix"):
        load(file(""), host="tcp://0.0.0.0:2375")


def test_a_file_that_others_may_write_is_refused(file):
    with pytest.raises(PermissionDenied, match="others than its owner"):
        load(file("", 0o622))


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(InvalidArgument, match="no such file"):
        load(str(tmp_path / "nosuch.toml"))
    assert config.read_file(str(tmp_path / "nosuch.toml"), required=False) == {}
