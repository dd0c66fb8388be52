-- The builder's cache. A result is what one instruction made of what was before it: `parent` is the
-- result below (NULL: the base image), `snapshot` the state of the files (NULL: they did not change),
-- `layer` the blob made of it, once somebody wanted one, as JSON.
CREATE TABLE build_results (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  key        TEXT NOT NULL,
  parent     INTEGER REFERENCES build_results (id) ON DELETE CASCADE,
  snapshot   TEXT REFERENCES snapshots (key) ON UPDATE CASCADE ON DELETE CASCADE,
  layer      TEXT,
  blob       TEXT,                 -- the layer's digest, which the collector has to see
  title      TEXT NOT NULL,
  made_s     INTEGER NOT NULL,     -- the time that files and histories have from it
  created_ns INTEGER NOT NULL,
  used_ns    INTEGER NOT NULL,
  uses       INTEGER NOT NULL
) STRICT;
CREATE INDEX build_results_key ON build_results (key);
CREATE INDEX build_results_parent ON build_results (parent);
CREATE INDEX build_results_snapshot ON build_results (snapshot);

-- Directories of RUN --mount=type=cache: volumes that outlive their builds. `name` is the id that the
-- Dockerfile gives.
CREATE TABLE build_mounts (
  volume     TEXT PRIMARY KEY REFERENCES volumes (name) ON DELETE CASCADE,
  name       TEXT NOT NULL,
  created_ns INTEGER NOT NULL,
  used_ns    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
