"""How far the loss curves of the four frameworks lie apart in the runs that `make lesson-figures` left.

    python benchmarks/curves.py [--iterations 100]

For each exercise and each two frameworks: the largest difference of the losses in the first iterations, in proportion
to the loss. The table is Markdown. unet and segnet raise their learning rate in 20 iterations: theirs part sooner.
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
from draw_figures import FRAMEWORKS, find_exercises  # noqa: E402


def stop(message):
    """End with one line and status 2."""
    print(f"curves.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_losses(exercise, framework):
    """Return the loss of each iteration of a run."""
    path = RUNS / f"{exercise}_{framework}/loss.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]
    except OSError:
        stop(f"{path}: cannot be read: run make lesson-figures first")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--iterations", type=int, default=100, help="how many of the first (%(default)s)")
    options = parser.parse_args()
    if options.iterations < 1:
        stop(f"--iterations {options.iterations}: give a whole number from 1 up")
    pairs = list(itertools.combinations(FRAMEWORKS, 2))
    table = Table("exercise", *(" – ".join(FRAMEWORKS[name] for name in pair) for pair in pairs), box=MARKDOWN)
    for exercise in find_exercises():
        losses = {framework: read_losses(exercise, framework)[: options.iterations] for framework in FRAMEWORKS}
        apart = [max(abs(a - b) / a for a, b in zip(losses[one], losses[other], strict=True)) for one, other in pairs]
        table.add_row(f"`{exercise}`", *(f"{each:.0e}" for each in apart))
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
