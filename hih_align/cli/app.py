"""The `hih-align` program: the list of its commands, and how errors and warnings are shown. One module per command."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__, progress
from ..runtime.memory import keep_freed_memory
from .options import INTERRUPTED

#: The commands, and their modules. A module is imported only if its command runs or help is shown.
COMMANDS = {
    "align": ".align",
    "video": ".video",
    "models": ".models",
    "convert": ".convert",
    "export": ".export",
    "train": ".train",
    "adapt": ".adapt",
    "scheme": ".scheme",
    "evaluate": ".evaluate",
    "calibrate": ".calibrate",
    "data": ".data",
    "demo": ".demo",
}

# click's base class of errors; typer has it under one of two names
_CommandLineError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


class Lines(TyperGroup):
    """Shows errors and warnings as one line each. Exit codes: 1 bad input, 2 wrong command line, 130 interrupted."""

    def main(self, *args: Any, **options: Any) -> Any:
        before, warnings.formatwarning = warnings.formatwarning, _warning
        try:
            code = super().main(*args, **(options | {"standalone_mode": False}))
        except _CommandLineError as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                error.show()
            else:
                _say(f"{' '.join(error.format_message().split())} (see --help)")
            sys.exit(error.exit_code)
        finally:
            warnings.formatwarning = before
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, TypeError, OSError, ImportError) as error:
            if os.environ.get("HIH_ALIGN_TRACEBACK"):
                raise
            _say(" ".join(str(error).split()))
            raise typer.Exit(1) from error
        except (MemoryError, RuntimeError) as error:
            # PyTorch's error of a GPU, which is imported only by the commands that may raise it
            if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
                raise
            if os.environ.get("HIH_ALIGN_TRACEBACK"):
                raise
            _say(f"out of memory: {' '.join((str(error).splitlines() or ['take smaller batches'])[0].split())}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            _say("interrupted")
            raise typer.Exit(INTERRUPTED) from None


class Program(Lines):
    """The commands of `COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(importlib.import_module(COMMANDS[cmd_name], __package__).app)
        command.name = cmd_name
        return command


def _say(text: str) -> None:
    typer.echo(f"hih-align: {text}", err=True)


def _warning(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning as one line, without the line of source code. Python writes it to its usual place."""
    progress.clear()
    return f"hih-align: warning: {' '.join(str(message).split())}\n"


app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Facial landmarks at subpixel accuracy: Heatmap in Heatmap.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"hih-align {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:  # with a callback, typer also expects the name of a command
    pass


def main() -> None:
    """The entry point of `hih-align`."""
    keep_freed_memory()
    if getattr(sys.stdout, "errors", None) == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a name that it cannot show is no error
    try:
        app()
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        # at the end of the interpreter, threads of PyTorch that still work would abort the process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
