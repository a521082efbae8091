"""Paths as users give them, and errors that name them.

Threads: any.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec, TypeAlias, TypeVar

StrPath: TypeAlias = str | os.PathLike[str]
BytesPath: TypeAlias = bytes | os.PathLike[bytes]
AnyPath: TypeAlias = StrPath | BytesPath

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S")


def encode(path: AnyPath) -> bytes:
    """The path as bytes. Raises ``TypeError``, and ``ValueError`` for a NUL, as ``os`` does."""
    raw = path.encode(_ENCODING, _ERRORS) if type(path) is str else os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("embedded null byte")
    return raw


def attribute_name(name: str | bytes) -> bytes:
    """The name of an extended attribute as bytes."""
    return encode(name)


def named(error: OSError, path: AnyPath, path2: AnyPath | None = None) -> None:
    """Let an error name the path that it is about, if it names none yet."""
    if error.filename is None:
        error.filename = os.fspath(path)
        if path2 is not None:
            error.filename2 = os.fspath(path2)


def naming(function: Callable[Concatenate[_S, AnyPath, _P], _R]) -> Callable[Concatenate[_S, AnyPath, _P], _R]:
    """A method whose first argument is a path: the ``OSError`` that it raises names it."""

    def call(self: _S, path: AnyPath, /, *args: _P.args, **options: _P.kwargs) -> _R:
        try:
            return function(self, path, *args, **options)
        except OSError as error:
            named(error, path)
            raise

    update_wrapper(call, function)
    return call
