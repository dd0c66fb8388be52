"""Sandboxes and notes as they are kept: versioned JSON, encoded in C."""

from __future__ import annotations

import msgspec

from sampan.errors import DataLoss
from sampan.pods.model import Notes, Sandbox  # noqa: TC001 - msgspec resolves them at run time

VERSION = 1


class _Sandbox(msgspec.Struct):
    v: int
    sandbox: Sandbox


class _Notes(msgspec.Struct):
    v: int
    notes: Notes


_encode = msgspec.json.Encoder().encode
_decode_sandbox = msgspec.json.Decoder(_Sandbox).decode
_decode_notes = msgspec.json.Decoder(_Notes).decode


def encode(sandbox: Sandbox) -> str:
    """The record of a sandbox."""
    return _encode(_Sandbox(VERSION, sandbox)).decode()


def decode(text: str) -> Sandbox:
    """The sandbox of a record. Raises DataLoss when it is none of ours."""
    try:
        return _decode_sandbox(text).sandbox
    except msgspec.MsgspecError as error:
        raise DataLoss(f"read sandbox: {error}") from error


def encode_notes(notes: Notes) -> str:
    """The notes of a container."""
    return _encode(_Notes(VERSION, notes)).decode()


def decode_notes(text: str) -> Notes:
    """The notes of a container. Raises DataLoss when they are none of ours."""
    try:
        return _decode_notes(text).notes
    except msgspec.MsgspecError as error:
        raise DataLoss(f"read the notes of a container: {error}") from error
