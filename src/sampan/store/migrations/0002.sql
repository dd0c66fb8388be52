-- Networks; `record` is the engine's versioned JSON.
CREATE TABLE networks (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  record     TEXT NOT NULL,
  created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Who is in a network now, container or pod. An address is given once in a network.
CREATE TABLE endpoints (
  network TEXT NOT NULL REFERENCES networks (id),
  owner   TEXT NOT NULL,
  ipv4    TEXT,
  ipv6    TEXT,
  record  TEXT NOT NULL,
  PRIMARY KEY (network, owner)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX endpoints_ipv4 ON endpoints (network, ipv4);
CREATE UNIQUE INDEX endpoints_ipv6 ON endpoints (network, ipv6);
CREATE INDEX endpoints_owner ON endpoints (owner);

-- Ports of the host that are published now.
CREATE TABLE ports (
  protocol  TEXT NOT NULL,
  host      TEXT NOT NULL,
  host_port INTEGER NOT NULL,
  owner     TEXT NOT NULL,
  port      INTEGER NOT NULL,
  PRIMARY KEY (protocol, host, host_port)
) STRICT, WITHOUT ROWID;
CREATE INDEX ports_owner ON ports (owner);
