"""What the environment tells of linked containers."""

from __future__ import annotations

from sampan.engine import linkedenv, model


def other(**config):
    return model.Container(
        id="a" * 64,
        name="db",
        created_at=0,
        config=model.ContainerConfig(image="x", **config),
        host=model.HostConfig(),
        path="sh",
        args=(),
        image_id="",
        image_name="",
    )


def test_a_container_without_ports():
    told = linkedenv.variables("me", "my-db", other(env=("A=b", "HOME=/x", "PATH=/bin", "N")), "1")
    assert told == ["MY_DB_NAME=/me/my-db", "MY_DB_ENV_A=b"]


def test_ports_in_their_order():
    told = linkedenv.variables("me", "db", other(exposed_ports=("99/udp", "80/tcp")), "10.0.0.1")
    assert told == [
        "DB_PORT=tcp://10.0.0.1:80",
        "DB_PORT_80_TCP=tcp://10.0.0.1:80",
        "DB_PORT_80_TCP_ADDR=10.0.0.1",
        "DB_PORT_80_TCP_PORT=80",
        "DB_PORT_80_TCP_PROTO=tcp",
        "DB_PORT_99_UDP=udp://10.0.0.1:99",
        "DB_PORT_99_UDP_ADDR=10.0.0.1",
        "DB_PORT_99_UDP_PORT=99",
        "DB_PORT_99_UDP_PROTO=udp",
        "DB_NAME=/me/db",
    ]
