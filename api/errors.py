"""Everything that condic raises because of its input, and helpers for it. Anything else that escapes is a bug."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral


class CondicError(Exception):
    """Base of all errors that input can cause. The message is one line: what, which value, which limit, the way out."""


class InputError(CondicError):
    """An argument, an image or a file that cannot be used as asked."""


class StreamError(CondicError):
    """A compressed file that is not one, is damaged, or asks for more than the limits allow."""


class LimitError(InputError, StreamError):
    """An image's size, or one that a file states, is over the limits that hold; the file need not be damaged."""


class IntegrityError(StreamError):
    """A checksum of the file, or of what was decoded from it, does not match."""


class BundleError(CondicError):
    """A model bundle that is missing, damaged, or not the one a file was made with."""


class BackendError(CondicError):
    """A backend that is not installed, failed its known-answer test, gave infinity or NaN, or ran out of memory (also a
    `MemoryError`)."""


class OutOfMemoryError(BackendError, MemoryError):
    """There is less free memory than was asked for; nothing else is wrong."""


class DeviceMemoryError(OutOfMemoryError):
    """The memory that is missing is the GPU's."""


class DeviceLostError(BackendError):
    """The GPU, or this process's context on it, can no longer be used."""


class SizeError(BackendError):
    """A backend cannot run images of a size: no engine covers it, or its kernels cannot count so many pixels."""


class CondicWarning(UserWarning):
    """Something of an image that a file or a format cannot hold, and what became of it; or a library that takes more
    memory than it should.
    """


@contextmanager
def within_memory() -> Iterator[None]:
    """Within it, memory that is missing is an OutOfMemoryError."""
    try:
        yield
    except CondicError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError("not enough memory") from error


def is_whole(value: object) -> bool:
    """Whether a value is an integer, NumPy's included; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def first_line(error: Exception) -> str:
    """The first line of a library's message that says more than where it was; the kind of error where there is none."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return next((line for line in lines if not line.endswith(":")), lines[0])


def install_hint(extras: str) -> str:
    """How to install optional parts of condic, which is on no package index: `extras` are their names."""
    return f"pip install '.[{extras}]' in condic's sources"
