"""The version of Sampan and of each interface that it serves."""

from __future__ import annotations

VERSION = "0.1.0"
DOCKER_API_VERSION = "1.55"
DOCKER_API_MIN_VERSION = "1.24"
OCI_RUNTIME_SPEC_VERSION = "1.3.0"
