-- The first schema. Times are nanoseconds since 1970. No foreign key is deferred: a commit carries
-- several writers' work, and one writer's mistake must show in its own statement.

-- Content that is complete, verified and fsynced.
CREATE TABLE blobs (
  digest     TEXT PRIMARY KEY,
  size       INTEGER NOT NULL,
  created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a blob (index, manifest, config) keeps alive. The child need not be there: one platform of
-- an index is pulled, the others are only named.
CREATE TABLE links (
  parent TEXT NOT NULL REFERENCES blobs (digest) ON DELETE CASCADE,
  kind   TEXT NOT NULL CHECK (kind IN ('blob', 'snapshot')),
  child  TEXT NOT NULL,
  PRIMARY KEY (parent, kind, child)
) STRICT, WITHOUT ROWID;

-- Names of images; each points at an index or a manifest.
CREATE TABLE images (
  name       TEXT PRIMARY KEY,
  digest     TEXT NOT NULL REFERENCES blobs (digest),
  media_type TEXT NOT NULL,
  size       INTEGER NOT NULL,
  created_ns INTEGER NOT NULL,
  updated_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX images_digest ON images (digest);

-- The tree of file system states. AUTOINCREMENT: the number of a removed snapshot names a directory
-- that may still wait in the trash, so it never comes back.
CREATE TABLE snapshots (
  number     INTEGER PRIMARY KEY AUTOINCREMENT,
  key        TEXT NOT NULL UNIQUE,
  kind       TEXT NOT NULL CHECK (kind IN ('active', 'view', 'committed')),
  parent     INTEGER REFERENCES snapshots (number),
  created_ns INTEGER NOT NULL,
  size       INTEGER,              -- bytes on disk, known once it was asked for
  inodes     INTEGER,
  boot       TEXT                  -- boot in which it was committed, NULL once synced to disk
) STRICT;
CREATE INDEX snapshots_parent ON snapshots (parent);

-- Containers; `record` is the engine's versioned JSON.
CREATE TABLE containers (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  record     TEXT NOT NULL,
  snapshot   TEXT REFERENCES snapshots (key),
  image      TEXT,                 -- digest of a blob that must stay while the container does
  created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX containers_snapshot ON containers (snapshot);

CREATE TABLE events (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  time_ns INTEGER NOT NULL,
  body    TEXT NOT NULL
) STRICT;

-- A lease keeps things that nothing else names yet, until its deadline.
CREATE TABLE leases (
  id         TEXT PRIMARY KEY,
  created_ns INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE lease_items (
  lease TEXT NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
  kind  TEXT NOT NULL CHECK (kind IN ('blob', 'snapshot')),
  key   TEXT NOT NULL,
  PRIMARY KEY (lease, kind, key)
) STRICT, WITHOUT ROWID;
