"""What every condic program shares: how it ends, two tiers of help, and options that many commands take."""

from __future__ import annotations

import errno
import functools
import io
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import Any, NoReturn

import click

from condic.errors import CondicError, CondicWarning, install_hint

FAILED, BAD_INPUT, SIGNALLED = 1, 2, 128
INTERRUPTED = SIGNALLED + signal.SIGINT
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""Those that end a program which has cleaned up behind itself."""
_ONE_END = 1.0
"""Seconds after a signal in which another one is taken for the same: a terminal that is closed sends several."""
_INTERRUPTED = "interrupted; nothing was left half-written"
_HELP_ALL = "condic.help_all"
"""Key in a context's `meta` that says which tier is printed."""

_OF_OUTPUT = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too large for this system",
    errno.EIO: "the device failed",
    errno.EBADF: "it is not open for writing",
}
"""Errors of writing to standard output, in words."""

Command = Callable[..., None]
_NO_ARGUMENTS = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""What a program without arguments ends with; before click 8.2 nothing: it prints its help."""


def run_program(name: str, command: click.Command, extras: str = "") -> None:
    """Runs a click command as the program `name` and exits.

    0: done; 1: the program did its work and the answer is no, or some files of several failed; 2: bad input or usage,
    in one line; 130, 143, 129: ended by SIGINT (Ctrl-C), SIGTERM or SIGHUP, with nothing left behind. A program whose
    standard output is closed early ends by SIGPIPE, as others do. Warnings are lines on standard error. A bug shows its
    traceback. `extras` are the optional parts of the installation that the program needs: a missing one is named.
    """
    with warnings.catch_warnings(), _ended_by_closed_pipes(), _interruptions() as interruptions:
        warnings.simplefilter("always", CondicWarning)
        warnings.showwarning = lambda message, *_, **__: say(name, f"warning: {message}")
        try:
            _prepare_standard_streams()
            code = command.main(prog_name=name, standalone_mode=False) or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            sys.exit(code)
        except (click.Abort, KeyboardInterrupt, Interruption):
            _fail(name, _INTERRUPTED, SIGNALLED + (interruptions or [signal.SIGINT])[0])
        except _NO_ARGUMENTS as error:
            error.show()  # the help
            sys.exit(BAD_INPUT)
        except Exception as error:
            if interruptions:  # a library has turned Ctrl-C into an error of its own
                _fail(name, _INTERRUPTED, SIGNALLED + interruptions[0])
            message = _what_input_caused(name, error, extras)
            if message is None:
                raise
            _fail(name, message, BAD_INPUT)


def _prepare_standard_streams() -> None:
    """What standard output cannot encode, in a file's name, is escaped, as on standard error.

    A stream that is closed stays so, for Python (None), but no file that is opened takes its number: what a library
    prints would go there.
    """
    for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
        if stream is None and not _is_open(number):
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _what_input_caused(name: str, error: Exception, extras: str) -> str | None:
    """The line about an error, or None for a bug."""
    match error:
        case CondicError():
            return str(error)
        case click.UsageError():
            return f"{error.format_message()} (see {error.ctx.command_path if error.ctx else name} --help)"
        case click.ClickException():
            return error.format_message()
        case ModuleNotFoundError() if extras and not (error.name or "condic").startswith("condic"):
            return f"this needs {error.name}: {install_hint(extras)}"
        case MemoryError():
            return "not enough memory"
        case OSError() if error.errno in _OF_OUTPUT and error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tries again when it exits
            return f"standard output: {_OF_OUTPUT[error.errno]}"
    return None


@contextmanager
def interruptions_held() -> Iterator[list[int]]:
    """Within it, Ctrl-C and its like wait for the end: libraries turn them into errors of their own while they load.

    Yields a list that grows with every one that waits.
    """
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    try:
        with signals_given_to(lambda number, _: held.append(number)):
            yield held
    finally:
        for number in dict.fromkeys(held):
            signal.raise_signal(number)


def with_setup(kind: type[Any], *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Adds `options` to a command, which takes them as one dataclass `kind`, its argument `setup`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(**arguments: Any) -> None:
            setup = kind(**{field.name: arguments.pop(field.name) for field in fields(kind)})
            command(setup=setup, **arguments)

        result: Command = wrapped
        for option in reversed(options):
            result = option(result)
        return result

    return decorate


class Number(click.FloatRange):
    """A number in a range; NaN and infinities, which click takes for numbers in any, are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As click has it."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class Rare(click.Option):
    """An option that only `--help-all` lists."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As click has it, or None in the basic tier."""
        return super().get_help_record(ctx) if ctx.meta.get(_HELP_ALL) else None


class TieredCommand(click.Command):
    """A command with `--help` and, where it has rare options, `--help-all`."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's parameters and `--help-all`."""
        params = super().get_params(ctx)
        return [*params, _help_all_option()] if any(isinstance(x, Rare) for x in params) else params


class TieredGroup(click.Group):
    """A group whose `--help-all` prints the help of every command, rare options included."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names in the order in which they were added."""
        return list(self.commands)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The group's parameters and `--help-all`."""
        return [*super().get_params(ctx), _help_all_option()]


def _help_all_option() -> click.Option:
    return click.Option(
        ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_print_all,
        help="Show this message with all options.",
    )  # fmt: skip


def _print_all(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    context.meta[_HELP_ALL] = True
    pages = [context.get_help()]
    command = context.command
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            pages.append(each.get_help(each.context_class(each, info_name=name, parent=context)))
    click.echo("\n\n".join(pages))
    context.exit()


class Interruption(BaseException):
    """Ctrl-C, or another signal to end, in a condic program; click prints an empty line about KeyboardInterrupt.

    Attributes:
        code: what a program ends with then.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = SIGNALLED + number


@contextmanager
def signals_given_to(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Within it, a function has the signals to end a program, in the main thread.

    Those that are ignored stay so, as Ctrl-C is by a shell's job in the background, and SIGHUP under nohup.
    """
    heeded = [x for x in _SIGNALS if signal.getsignal(x) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def _interruptions() -> Iterator[list[int]]:
    """A list that grows with every signal to end, which raises `Interruption`; the next ones leave the clean-up."""
    received: list[int] = []

    last = -math.inf

    def note(number: int, frame: Any) -> None:
        nonlocal last
        if time.monotonic() - last > _ONE_END:
            last = time.monotonic()
            received.append(number)
            raise Interruption(number)

    with signals_given_to(note):
        yield received


@contextmanager
def _ended_by_closed_pipes() -> Iterator[None]:
    """Within it, writing to a pipe that nobody reads ends the process, as it ends other programs."""
    if not hasattr(signal, "SIGPIPE"):
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)


def _fail(name: str, message: str, code: int) -> NoReturn:
    say(name, message)
    sys.exit(code)


def say(name: str, message: str) -> None:
    """Prints a message of the program `name`, one line, on standard error."""
    with suppress(OSError):  # what cannot be said changes nothing
        click.echo(f"{name}: {' '.join(message.split())}", err=True)


threads_option = click.option(
    "--threads", type=click.IntRange(0, 256), default=0, help="0: as many as the backend likes."
)
