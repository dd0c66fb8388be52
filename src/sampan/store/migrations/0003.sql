-- Volumes. Who mounts one is said by the records of containers alone. `options` and `labels` are
-- JSON objects of text.
CREATE TABLE volumes (
  name       TEXT PRIMARY KEY,
  anonymous  INTEGER NOT NULL CHECK (anonymous IN (0, 1)),
  labels     TEXT NOT NULL,
  options    TEXT NOT NULL,
  created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
