"""Train each exercise in double precision in all four frameworks, and tell how far their losses are apart.

    python tools/parity.py [--exercises "unetlike concat"] [--frameworks "pytorch keras"] [--iterations 20]

Every run is a whole one of the answer, with the full recipe, at its default options but for --iterations where it is
given. The table shows, for each exercise and pair of frameworks, the largest relative difference of two losses of the
same iteration, of all trainings that a run consists of; the last line is the largest of all. In double precision
rounding stays so small that anything but a difference in arithmetic shows: the exit status is 1 where a run of at most
30 iterations parts by more than 1e-9, or a longer one by more than 1e-5. loss*.csv of each run is kept in
outputs/parity/. All exercises take some hours.
"""

import argparse
import csv
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
from exercises import FRAMEWORKS, answer_path, find_exercise, read_exercises
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
SHORT = 30  # iterations in which rounding has no time to grow
BOUNDS = {"short": 1e-9, "long": 1e-5}
# What an answer's main does, without the test, which takes time and has no part in the losses.
RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import exercises
sys.argv.pop(0)
answer = exercises.load_answer(sys.argv[0])
answer.FLOAT = "float64"
measures = dict.fromkeys(("miou", "pixel_accuracy", "mean_digit_iou"), float("nan"))
answer.test, answer.test_faults = lambda *_: dict(measures), lambda *_: {}
if hasattr(answer, "validate"):  # which only chooses the weights to keep
    answer.validate = lambda *_: ({"miou": 0, "iou": {}, "pixel_accuracy": 0}, {})
if hasattr(answer, "PHASES"):
    answer.evaluate, answer.NUMBERS["pictures"] = lambda *_: (dict(measures), {}), (0, range(1), "pictures")
answer.main()
"""


def stop(message):
    """End with one line and status 2."""
    print(f"parity.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def train(exercise, framework, iterations):
    """Return the losses (iterations,) of a run of an answer in double precision; stop where it fails.

    Where a run consists of several trainings, those of all, one after another.
    """
    script = answer_path(exercise, framework)
    out = REPOSITORY / "outputs/parity" / script.stem
    for path in out.glob("loss*.csv"):
        path.unlink()
    options = ["--out", str(out), "--device", "cpu"] + (["--iterations", str(iterations)] if iterations else [])
    if iterations and '"pretraining": (' in script.read_text(encoding="utf-8"):
        options += ["--pretraining", str(iterations)]
    command = [sys.executable, "-c", RUN, str(Path(__file__).parent), str(script), *options]
    # In the repository, below which an answer finds what the answers to earlier exercises wrote, or makes it.
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", cwd=REPOSITORY
    )
    if done.returncode:
        stop(f"{script.name} ended with status {done.returncode}: {(done.stderr.splitlines() or [''])[-1]}")
    losses = []
    for path in sorted(out.glob("loss*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            losses += [float(row["loss"]) for row in csv.DictReader(file)]
    return np.array(losses)


def compare(losses):
    """Return {pair of frameworks: largest relative difference} of {framework: losses (iterations,)}."""
    differences = {}
    for one, other in itertools.combinations(losses, 2):
        a, b = losses[one], losses[other]
        if a.shape != b.shape or not np.isfinite([a, b]).all():
            stop(f"{one} and {other}: {a.size} and {b.size} losses, or some that are not finite: nothing to compare")
        differences[one, other] = float(np.max(np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), 1e-300)))
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--exercises", help="names, as one argument (all that train)")
    parser.add_argument("--frameworks", default=" ".join(FRAMEWORKS), help="two or more (%(default)s)")
    parser.add_argument("--iterations", type=int, help="of each run (the answer's own default)")
    options = parser.parse_args()
    frameworks = list(dict.fromkeys(options.frameworks.split()))
    if len(frameworks) < 2 or not set(frameworks) <= set(FRAMEWORKS):
        stop(f"--frameworks {options.frameworks}: give two or more of {' '.join(FRAMEWORKS)}")
    if options.iterations is not None and options.iterations < 1:
        stop(f"--iterations {options.iterations}: give a number from 1 up")
    try:
        named = [find_exercise(name) for name in (options.exercises or "").split()]
    except ValueError as error:
        stop(f"--exercises: {error.args[0]}")
    chosen = named or [exercise for exercise in read_exercises() if exercise.trains]
    for exercise in chosen:
        if not exercise.trains:
            stop(f"--exercises: {exercise.name} trains no network of its own: leave it out")

    console, largest, failed = Console(), {}, False
    letters = {name: FRAMEWORKS[name][0] for name in frameworks}  # whole names would not fit into 80 columns
    pairs = (f"{letters[one]} - {letters[other]}" for one, other in itertools.combinations(frameworks, 2))
    meanings = ", ".join(f"{letter} {FRAMEWORKS[name]}" for name, letter in letters.items()) + ", ! too far apart"
    table = Table("exercise", "steps", *pairs, box=SIMPLE_HEAD, padding=0, pad_edge=False, caption=meanings)
    for column in table.columns:
        column.no_wrap = True
    for exercise in chosen:
        losses = {}
        for framework in frameworks:
            console.print(f"training {exercise.name} in {FRAMEWORKS[framework]} in double precision", highlight=False)
            losses[framework] = train(exercise, framework, options.iterations)
        differences, steps = compare(losses), len(losses[frameworks[0]])
        bound = BOUNDS["short" if steps <= SHORT else "long"]
        cells = [f"{value:.1e}" + "!" * (value > bound) for value in differences.values()]
        table.add_row(exercise.name, str(steps), *cells)
        console.print(f"{exercise.name}, {steps} iterations: at most {max(differences.values()):.1e}", highlight=False)
        largest[exercise.name] = max(differences.values())
        failed |= not largest[exercise.name] <= bound
    console.print(table)
    print(f"largest of all: {max(largest.values()):.1e} ({max(largest, key=largest.get)})")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("parity.py: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
