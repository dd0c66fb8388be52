-- What containerd's clients labelled. `kind` is content, image, lease, namespace or snapshot; `name`
-- is the object's own, "" for a namespace. Labels keep nothing alive.
CREATE TABLE labels (
  namespace TEXT NOT NULL,
  kind      TEXT NOT NULL,
  name      TEXT NOT NULL,
  labels    TEXT NOT NULL,
  PRIMARY KEY (namespace, kind, name)
) STRICT, WITHOUT ROWID;
