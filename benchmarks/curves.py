"""From which iteration on rounding parts the loss curves of the four frameworks, in the runs of `make lesson-figures`.

    python benchmarks/curves.py [--apart 0.001]

For each exercise and each two frameworks: the first iteration at which the losses differ by more than this share of the
loss, and the largest difference of the whole run. The runs are in single precision; in double precision, `make parity`,
the curves stay together. The table is Markdown.
"""

import argparse
import csv
import itertools
import sys
from pathlib import Path

from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
RUNS = REPOSITORY / "outputs/lesson"
sys.path.insert(0, str(REPOSITORY / "tools"))
from exercises import FRAMEWORKS, read_exercises  # noqa: E402


def stop(message):
    """End with one line and status 2."""
    print(f"curves.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_losses(exercise, framework):
    """Return the loss of each iteration of a run."""
    path = RUNS / f"{exercise.stem}_{framework}/loss.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]
    except OSError:
        stop(f"{path}: cannot be read: run make lesson-figures first")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--apart", type=float, default=0.001, help="share of the loss (%(default)s)")
    options = parser.parse_args()
    if not options.apart > 0:
        stop(f"--apart {options.apart}: give a number above 0")
    pairs = list(itertools.combinations(FRAMEWORKS, 2))
    table = Table("exercise", *(" – ".join(FRAMEWORKS[name] for name in pair) for pair in pairs), box=MARKDOWN)
    for exercise in read_exercises():
        if not exercise.predicts or not exercise.trains:
            continue
        losses = {framework: read_losses(exercise, framework) for framework in FRAMEWORKS}
        cells = []
        for one, other in pairs:
            apart = [abs(a - b) / a for a, b in zip(losses[one], losses[other], strict=True)]
            first = next((i for i, each in enumerate(apart, start=1) if each > options.apart), None)
            cells.append(f"{'never' if first is None else first}, {max(apart):.1%}")
        table.add_row(f"`{exercise.name}`", *cells)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
