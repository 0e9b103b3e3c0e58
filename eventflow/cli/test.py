"""`eventflow test PATH`: runs the cases of the test files. No database, no clock, no task is executed."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from eventflow.cli.options import Json, examples
from eventflow.cli.output import line, note, print_json

if TYPE_CHECKING:
    from eventflow.rulefile.verdict import Verdict


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        name="test",
        epilog=examples(
            "eventflow test rules/                     every NAME.test.yaml of the folder",
            "eventflow test rules/ --junit report.xml  for CI",
            "eventflow test rules/ --seed 7            other shuffles and splits",
        ),
    )(_command)


def _command(
    path: Annotated[
        Path, typer.Argument(help="A folder of rule files, or one rule file.", show_default=False)
    ],
    as_json: Json = False,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit XML report as well.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the shuffles and splits.")] = 0,
) -> None:
    """Run the cases that stand beside the rules.

    Exits 1 where one fails, 2 where a rule file or test file is broken.
    """
    raise typer.Exit(run_cases(path, as_json=as_json, junit=junit, seed=seed))


def run_cases(path: Path, *, as_json: bool, junit: Path | None, seed: int) -> int:
    """Run all cases and print how they ended; the exit code.

    Raises `UsageError` where there is no such path.
    """
    from eventflow.rulefile.examine import examine
    from eventflow.rulefile.junit import as_junit
    from eventflow.rulefile.verdict import judge

    examined = examine(path)
    if examined.ruleset is None or examined.errors:
        for problem in examined.errors:
            note(str(problem))
        return 2
    results: list[tuple[Verdict, float]] = []
    for case in examined.cases:
        begun = perf_counter()
        results.append((judge(case, examined.ruleset, seed), perf_counter() - begun))
    if junit is not None:
        _write(junit, as_junit(results))
    if as_json:
        print_json([_record(verdict, seconds) for verdict, seconds in results])
    else:
        _print(results)
    return 0 if all(verdict.passed for verdict, _ in results) else 1


def _write(report: Path, content: bytes) -> None:
    from eventflow.errors import UsageError

    try:
        report.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {report}: {error.strerror}") from error


def _record(verdict: Verdict, seconds: float) -> dict[str, object]:
    return {
        "name": verdict.case.name,
        "file": verdict.case.file,
        "line": verdict.case.line,
        "passed": verdict.passed,
        "failures": list(verdict.failures),
        "variation": verdict.variation or None,
        "seed": verdict.seed,
        "seconds": round(seconds, 6),
    }


def _print(results: list[tuple[Verdict, float]]) -> None:
    for verdict, _ in results:
        case = verdict.case
        also = f" (seed {verdict.seed})" if case.shuffles or case.splits else ""
        line(f"{'ok    ' if verdict.passed else 'FAILED'} {case.name}{also}")
        if not verdict.passed:
            line(f"       {case.file}:{case.line}, {verdict.variation}")
            for text in verdict.failures:
                line(f"       {text}")
    failed = sum(not verdict.passed for verdict, _ in results)
    if results:
        line(f"{len(results)} {'case' if len(results) == 1 else 'cases'}, {failed} failed")
    else:
        note("no cases: they stand in NAME.test.yaml beside a rule file")
