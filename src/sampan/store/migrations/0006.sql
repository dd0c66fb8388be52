-- When an image was last used for a container: what a policy that keeps the last used goes by.
CREATE TABLE image_use (
  id      TEXT PRIMARY KEY,
  used_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
