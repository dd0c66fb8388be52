"""The version of Sampan and of each interface that it serves."""

from __future__ import annotations

VERSION = "0.1.0"
DOCKER_API_VERSION = "1.50"
"""What clients are told, and get when they do not ask: a version whose answers have what
programs have read for ten years. From 1.52 on much of it is gone; who asks for that gets it."""

DOCKER_API_MAX_VERSION = "1.55"
DOCKER_API_MIN_VERSION = "1.24"
OCI_RUNTIME_SPEC_VERSION = "1.3.0"
