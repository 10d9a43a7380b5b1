"""Put deliberate faults into the code that decides, one at a time, and see whether a test notices: `make test-mutants`.

python -m tests.mutants [PATH ...]      modules or folders; without any all that decide
    --sample 12     faults a module, drawn by the seed; 0: all.  A larger sample contains the smaller one
    --budget 40     seconds of tests a fault, the quickest first
    --depth 3       how far to go where nothing was noticed: test files named after the module, six of its folder that
                    import it, six more, and so on
    --patience 60   seconds, and five times what the tests took, after which a fault counts as noticed
    --again         measure the survivors that are not accepted again, too
    --table         print what was measured, and the survivors
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tests.mutants.copies import Copy
from tests.mutants.covering import Tests
from tests.mutants.faults import Mutant, mutants
from tests.mutants.results import HERE, Results, Row, identity, read_accepted, row_of, survivors, table

DECIDING = (
    "cl_steps/steps/promote.py",
    "cl_steps/steps/gate.py",
    "cl_steps/ledger",
    "cl_steps/repository/beginning.py",
    "cl_steps/records",
    "cl_steps/verify",
    "cl_steps/acts",
    "cl_steps/stats",
    "cl_steps/learning",
    "cl_steps/orchestration",
    "dags",
)
"""The code that decides: the one place that names it."""
HEAVY = (
    "cryptography.x509",
    "diffusers",
    "dvc.repo",
    "jsonschema",
    "matplotlib.pyplot",
    "pandas",
    "peft",
    "pyarrow.parquet",
    "pydantic.main",
    "ruamel.yaml",
    "scipy.stats",
    "sklearn.linear_model",
    "torch",
    "transformers",
)
"""Imported once: most of what a step pays before it begins."""
ROOT = Path(__file__).parents[2]


def modules(root: Path, paths: tuple[str, ...]) -> list[str]:
    """The modules at and below the paths, in their order."""
    found = (sorted((root / path).rglob("*.py")) if (root / path).is_dir() else [root / path] for path in paths)
    return [str(file.relative_to(root)) for files in found for file in files]


def drawn(some: list[Mutant], seed: int, size: int) -> list[Mutant]:
    """A sample that depends on the faults themselves alone."""
    ranked = sorted(some, key=lambda m: hashlib.sha256(f"{seed} {identity(row_of(m))}".encode()).digest())
    return ranked[: size or None]


def measure(tests: Tests, mutant: Mutant, args: argparse.Namespace) -> Row:
    """Whether a test that runs the line fails with the fault, and passes without it; files in widening circles."""
    number, seconds = 0, 0.0
    for files in islice(tests.circles(mutant.path), args.depth):
        names, expected = tests.choose(mutant, files, args.budget)
        while names:
            failed, code, took = tests.failing(mutant, names, args.patience + 5 * expected)
            number, seconds = number + len(names), seconds + took
            if code == 0:
                break
            by = failed or tests.otherwise(mutant, names, code)
            if failed is None or tests.passes(failed):
                return row_of(mutant, outcome="killed", by=by, tests=number, seconds=round(seconds, 1))
            names = tuple(name for name in names if name != failed)
    return row_of(mutant, outcome="survived", by="", tests=number, seconds=round(seconds, 1))


def run(root: Path, results: Results, args: argparse.Namespace, heavy: tuple[str, ...] = HEAVY) -> Iterator[Row]:
    """Measure what is not known yet; each row as it comes."""
    accepted, deciding = read_accepted(args.accepted), tuple(modules(root, args.deciding))
    copy = Copy(root, heavy)
    tests = Tests(copy, deciding, root / ".mutants")
    try:
        for path in modules(root, tuple(args.paths)) or deciding:
            every = mutants(path, (root / path).read_bytes())
            results.keep(path, every)
            sample = set(drawn(every, args.seed, args.sample))
            for mutant in every:
                known = results.rows.get(identity(row_of(mutant)))
                doubtful = known and known["outcome"] == "survived" and identity(known)[:3] not in accepted
                if (known is None and mutant in sample) or (doubtful and args.again):
                    row = measure(tests, mutant, args)
                    results.add(row)
                    yield row
    finally:
        copy.close()


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--sample", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=40.0)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--patience", type=float, default=60.0)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.set_defaults(accepted=HERE / "accepted.yaml", deciding=DECIDING)
    return parser.parse_args(words)


def main() -> None:
    """Measure, unless only the table is asked for, and print it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the copy is cleared away then, too
    args, results = parsed(), Results.read(HERE / "results.jsonl")
    for row in () if args.table else run(ROOT, results, args):
        print(f"{row['outcome']:9}{row['path']}:{row['line']} {row['change'][:90]}  [{row['by']}]", flush=True)
    accepted = read_accepted(args.accepted)
    print(f"\n{survivors(results.rows.values(), accepted)}\n\n{table(results.rows.values(), accepted)}")


if __name__ == "__main__":
    main()
