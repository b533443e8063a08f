"""What each trap of street_parallel's lesson does to the losses of two processes, in double precision.

    python benchmarks/parallel_traps.py [--data FOLDER] [--iterations 20] [--size 64] [--only "mean_of_means own_norm"]

Each trap is planted in a copy of the answer, which trains in two processes on what 02_street_records_pytorch.py wrote;
for each loss the relative difference from street_train's is taken. The lesson quotes the largest, and the first.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
from exercises import answer_path  # noqa: E402

DOUBLE = ('\nFLOAT = "float32"', '\nFLOAT = "float64"')
OWN_TOTAL = ("    distributed.all_reduce(total)\n    return total.clamp", "    return total.clamp")
DIVIDED = ("(options.processes * part).backward()", "part.backward()")
SHARE = "range(step * options.batch, (step + 1) * options.batch)[options.rank :: options.processes]"
STEP = "    epoch, step = divmod(iteration, count_steps(records, options))\n"
OWN_SEED = '    options = argparse.Namespace(**vars(options) | {"seed": options.seed + options.rank})\n'
TRAPS = {  # framework, what is replaced by what, options
    "none": ("pytorch", [], []),
    "mean_of_means": ("pytorch", [OWN_TOTAL, DIVIDED, ("return loss.item()", "return loss.item() / 2")], []),
    "divided_twice": ("pytorch", [DIVIDED], []),
    "same_share": ("pytorch", [(SHARE, SHARE.replace("options.rank", "0"))], []),
    "seed_for_each": ("pytorch", [(STEP, STEP + OWN_SEED)], []),
    "own_norm": ("pytorch", [], ["--norm", "own"]),
    "strided_gradients": ("chainer", [("parameter.xp.ascontiguousarray(parameter.grad)", "parameter.grad")], []),
}


def plant(trap):
    """Return the text of an answer in double precision with a trap in it; ValueError where that is not what it was."""
    framework, changes, _ = TRAPS[trap]
    text = answer_path("street_parallel", framework).read_text(encoding="utf-8")
    for old, new in [DOUBLE, *changes]:
        if text.count(old) != 1:
            raise ValueError(f"{trap}: stands {text.count(old)} times in the answer, not once: {old!r}")
        text = text.replace(old, new)
    return text


def find_losses(text, name, folder, arguments):
    """Run an answer of this text and name in a folder; return its losses."""
    script = folder / name
    script.write_text(text, encoding="utf-8")
    subprocess.run(
        [sys.executable, str(script), *arguments, "--out", str(folder / "out")], check=True, stdout=subprocess.DEVNULL
    )
    with open(folder / "out" / "loss.csv", newline="", encoding="utf-8") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="outputs/02_street_records_pytorch", help="(%(default)s)")
    parser.add_argument("--iterations", default="20", help="(%(default)s)")
    parser.add_argument("--size", default="64", help="height and width of the crops (%(default)s)")
    parser.add_argument("--only", default=" ".join(TRAPS), help="(%(default)s)")
    options = parser.parse_args()
    if unknown := set(options.only.split()) - set(TRAPS):
        parser.error(f"--only {' '.join(unknown)}: give some of {' '.join(TRAPS)}")
    common = ["--data", str(Path(options.data).resolve()), "--iterations", options.iterations, "--size", options.size]
    common += ["--pictures", "0"]
    one = {}
    print("| trap | answer | first loss | all losses |\n|---|---|---|---|")
    for trap in options.only.split():
        framework, _, more = TRAPS[trap]
        with tempfile.TemporaryDirectory() as folder:
            if framework not in one:
                train = answer_path("street_train", framework)
                text = train.read_text(encoding="utf-8").replace(*DOUBLE)
                one[framework] = find_losses(text, train.name, Path(folder), common)
            name = answer_path("street_parallel", framework).name
            losses = find_losses(plant(trap), name, Path(folder), [*common, "--processes", "2", *more])
        apart = [abs(loss / alone - 1) for loss, alone in zip(losses, one[framework], strict=True)]
        print(f"| {trap} | {framework} | {apart[0]:.1e} | {max(apart):.1e} |", flush=True)


if __name__ == "__main__":
    main()
