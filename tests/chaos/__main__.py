"""`make kill`: the command line of the kill run.

Exit codes: 0 the oracle found nothing wrong (with a mutant: it survived, which is said loudly), 1 the oracle
found a violation (with a mutant: it was caught, as it must be), 2 the run itself did not work.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import signal
import sys
from pathlib import Path

from tests.chaos import mutants
from tests.chaos.processes import CannotRun
from tests.chaos.run import KillRun, Verdict, summary, work_folder

SMOKE_SECONDS = 25.0


def main() -> int:
    options = _options()
    if options.list_mutants:
        print("\n".join(mutants.names()))
        return 0
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    seconds = SMOKE_SECONDS if options.smoke else options.seconds
    mutant = f", mutant {options.mutant}" if options.mutant else ""
    print(f"seed {seed}, {seconds:g} s of faults{mutant}", flush=True)
    # A cancelled CI job sends SIGTERM: like Ctrl-C it must leave no process behind.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    folder = work_folder(seed, options.mutant)
    print(f"work folder {folder}", flush=True)
    try:
        if options.unit_tests:
            code = mutants.unit_tests(options.mutant, folder)
            shutil.rmtree(folder, ignore_errors=True)
            return code
        verdict = asyncio.run(KillRun(seed, seconds, options.mutant, folder).run())
    except CannotRun as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 2
    except ExceptionGroup as group:
        if (broken := group.subgroup(CannotRun)) is None:
            raise
        print(f"cannot run: {broken.exceptions}", file=sys.stderr)
        return 2
    planted = f" MUTANT={options.mutant}" if options.mutant else ""
    replay = f"make kill SEED={seed} SECONDS={seconds:g}{planted}"
    code = _report(verdict, options.mutant, replay, folder)
    if not options.keep and (options.mutant or code == 0):
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make kill", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay the run with this seed; absent: a new one")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults go on")
    parser.add_argument("--smoke", action="store_true", help=f"{SMOKE_SECONDS:g} seconds of faults")
    parser.add_argument(
        "--mutant", help="plant this bug (a name, or a patch's path) first; the run must fail"
    )
    parser.add_argument(
        "--unit-tests", action="store_true", help="only run the unit tests with the mutant in"
    )
    parser.add_argument("--list-mutants", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the work folder in any case")
    options = parser.parse_args()
    if options.unit_tests and not options.mutant:
        parser.error("--unit-tests needs a --mutant")
    return options


def _report(verdict: Verdict, mutant: str | None, replay: str, folder: Path) -> int:
    print(summary(verdict))
    if not verdict.violations:
        if mutant:
            print(
                f"\nMUTANT SURVIVED: nothing noticed '{mutant}'. Oracle too weak, or run too short: {replay}"
            )
        else:
            print("ok")
        return 0
    if mutant:
        print(f"\nmutant caught by: {verdict.violations[0].promise}")
    print("\n".join(f"VIOLATION  {violation}" for violation in verdict.violations))
    if not mutant:
        print("faults\n" + "\n".join(f"  {fault}" for fault in verdict.inflicted))
        print(f"everything is in {folder}")
    print(f"replay: {replay}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
