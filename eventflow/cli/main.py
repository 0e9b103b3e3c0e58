"""The command `eventflow`: its commands, and the one place where an error becomes a line and an exit code.

Exit codes: 0 done, 1 the thing asked about failed, 2 wrong use or wrong file.

Every command's module imports what it needs inside the command: `eventflow --help` answers in a fraction
of the time that CEL, pydantic and asyncpg take to load.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from eventflow.cli import (
    apply,
    audit,
    check,
    db,
    dlq,
    events,
    explain,
    firings,
    rules,
    run,
    runs,
    serve,
    sources,
    test,
)  # fmt: skip
from eventflow.cli.options import examples
from eventflow.cli.output import note
from eventflow.errors import EventflowError, RuleSetError, UsageError

app = typer.Typer(
    name="eventflow",
    help="When data arrives, the right workflow starts: exactly once, and you can ask why.",
    epilog=examples(
        "eventflow check rules/            is the rule set right?",
        "eventflow serve rules/            run it: sources, workers, HTTP, on an embedded Postgres",
        "eventflow runs                    what ran, newest first",
        "eventflow explain orders.csv#1    why did this event start that, and why not this?",
        "eventflow dlq                     what could not be processed",
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for module in (serve, apply, check, test):
    module.register(app)
for module in (events, sources, rules, firings, runs, run, dlq, explain, audit, db):
    module.register(app)


@app.callback(invoke_without_command=True)
def _version(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"eventflow {installed('eventflow')}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(2)


def main() -> NoReturn:
    """The entry point. What `_problems` does not know is a bug: it shows its traceback."""
    try:
        app(prog_name="eventflow")
        code = 0
    except BrokenPipeError:
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        problems = _problems(error)
        if not problems:
            raise
        for problem in problems:
            note(problem)
        code = 2 if _is_usage(error) else 1
    finally:
        _flush()
    sys.exit(code)


def _flush() -> None:
    """`eventflow events | head` is no failure: what nobody reads is dropped before Python complains."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _problems(error: BaseException) -> list[str]:
    """What to tell the person, a line each; empty for an error that nobody raised on purpose."""
    if members := _members(error):
        told = [_problems(one) for one in members]
        return list(dict.fromkeys(line for lines in told for line in lines)) if all(told) else []
    if isinstance(error, RuleSetError):
        return [str(problem) for problem in error.problems]
    return [f"eventflow: {error}"] if isinstance(error, (EventflowError, OSError)) else []


def _is_usage(error: BaseException) -> bool:
    return isinstance(error, UsageError) or any(_is_usage(one) for one in _members(error))


def _members(group: BaseException) -> tuple[BaseException, ...]:
    """The errors of an `ExceptionGroup`: what ends a task group comes in one."""
    found: tuple[BaseException, ...] = getattr(group, "exceptions", ())
    return found
