"""What the gRPC library says in the log."""

from __future__ import annotations

import logging

from sampan.api import rpc

LIBRARY = logging.getLogger("grpc._cython.cygrpc")


def test_a_client_that_leaves_is_no_defect(caplog):
    assert rpc.MAX_MESSAGE  # imported: the filter is there
    LIBRARY.error("ExecuteBatchError raised in core by servicer method [%s]", "/a/Read")
    LIBRARY.error("Unexpected exception in %s", "/a/Read")
    assert [record.getMessage() for record in caplog.records] == ["Unexpected exception in /a/Read"]
