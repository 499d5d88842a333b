"""Measure the figures of docs/benchmarks.md: `python tests/bench [NAME...] [--quick] [--json]`. The exit code is 0.

A figure over its limit is marked, and fails nothing: it depends on the machine, and on what else that does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path


def main() -> None:
    sys.path[0] = str(Path(__file__).parents[2])  # Python put this folder there
    from tests.bench.docker import docker, missing
    from tests.bench.measure import Scale
    from tests.bench.rows import ROWS as HERE
    from tests.bench.slurm import slurm
    from tests.bench.slurm_queries import queries, without_cluster

    ROWS = {**HERE, "docker": docker, "slurm": slurm, "queries": queries}
    NEEDS = {"docker": missing, "slurm": without_cluster, "queries": without_cluster}  # what says why they are left out

    parser = argparse.ArgumentParser(prog="tests/bench", description="Measure the figures of docs/benchmarks.md.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(ROWS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it runs")
    parser.add_argument("--json", action="store_true", help="one line of JSON a figure")
    given = parser.parse_args()
    if unknown := set(given.names) - set(ROWS):
        parser.error(f"there is no {', '.join(unknown)}")
    scale = Scale(1, (20, 40), 5, 20_000, 20, 50, 50, 100, 20, 40) if given.quick else Scale()
    for name in [name for name in os.environ if name.startswith("NEMORUN_")]:
        del os.environ[name]
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a start that compiles is nobody's usual one
    if not given.json:
        print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.system()}")
    for name in given.names or [name for name in ROWS if not (given.quick and name in NEEDS)]:
        if name in NEEDS and (without := NEEDS[name]()):
            print(f"{name} is left out: {without}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory(prefix="nemorun-bench-") as folder:
            os.environ["NEMORUN_HOME"] = os.path.join(folder, "home")
            try:
                figures = ROWS[name](scale, Path(folder))
            except Exception:
                traceback.print_exc()
                continue
        for one in figures:
            if given.json:
                print(json.dumps({**one._asdict(), "verdict": one.verdict}), flush=True)
                continue
            details = "; ".join(f"{what} {value:,.1f}" for what, value in one.details.items())
            line = f"{one.what:46} {one.measured:7.2f} {one.unit:3}  at most {one.limit:3g}  {one.verdict:4}  {details}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
