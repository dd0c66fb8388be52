-- Sandboxes of pods; `record` is versioned JSON that the pods room alone reads. A sandbox's name is
-- taken while its row is there.
CREATE TABLE sandboxes (
  id         TEXT PRIMARY KEY,
  name       TEXT NOT NULL UNIQUE,
  record     TEXT NOT NULL,
  created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
