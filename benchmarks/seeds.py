"""What each framework reaches over several seeds: mean and spread of the mIoU on the test pictures of a data folder.

    python benchmarks/seeds.py [--exercises "bin_test unetlike"] [--data Dataset/photographs] [--seeds 3] [--folds 4]
                               [--frameworks "pytorch"] [--jobs 2] [--keep]

Every run is the answer at its default options but for --data and --seed, in a process of its own. Beside it stands what
calling every pixel background would reach on the same pictures. A handful of test pictures say little: with --folds N
all pictures, of train/ and test/, are dealt out to N folds, species by species, each fold is the test set of a run that
trains on the others, and a seed's mIoU is the mean of its N runs. With --jobs N, N runs go side by side, a core each.
With --keep, the numbers of the bundled newts go to assets/results.json, where the lesson and the comparison read them.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from rich.console import Console
from rich.progress import track
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
import exercises  # noqa: E402
from results import RESULTS, read_results, write_results  # noqa: E402

FRAMEWORKS = "pytorch tensorflow keras chainer"


def stop(message):
    """End with one line and status 2."""
    print(f"seeds.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def find_answer(name, framework):
    """Return the exercise of a name and the path of its answer in a framework; stop where it measures no newts."""
    try:
        exercise = exercises.find_exercise(name)
        path = exercises.answer_path(exercise, framework)
    except ValueError as error:
        stop(str(error))
    if exercise.subject != "semaseg" or not exercise.predicts:
        stop(f"--exercises: {name} does not measure what it makes of newts: give others")
    return path


def background_miou(script, folders):
    """Return the mIoU, mean over data folders, of calling every pixel of their test pictures background."""
    targets = [script.load_newts(folder / "test", script.NUMBERS["size"][0])[2] for folder in folders]
    return statistics.mean(script.measure(0 * target, target)["miou"] for target in targets)


def deal(script, data, count, out):
    """Make `count` data folders of links below out, all of the pictures of data, each picture once a test picture."""
    pairs = {}
    for part in ("train", "test"):
        images, _ = script.find_images(data / part / "images")
        masks, _ = script.find_images(data / part / "seg_images")
        for name in images.keys() & masks.keys():
            pairs[f"{Path(name).parent}/{part}_{Path(name).name}"] = images[name], masks[name]
    turns = {}
    for name in sorted(pairs):
        turns.setdefault(Path(name).parent, itertools.cycle(range(count)))
        fold = next(turns[Path(name).parent])
        for i in range(count):
            part = out / str(i) / ("test" if i == fold else "train")
            for kind, source in zip(("images", "seg_images"), pairs[name], strict=True):
                link = part / kind / f"{name}{source.suffix}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source.resolve())
    return [out / str(i) for i in range(count)]


def run(script, data, seed, cores):
    """Return the mIoU of one run; it has one of `cores` to itself, or all of them where there is no queue of cores."""
    core = cores and cores.get()
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, str(script), "--data", str(data), "--seed", str(seed), "--out", out]
        pin = (lambda: os.sched_setaffinity(0, {core})) if cores else None
        try:
            done = subprocess.run(command, capture_output=True, text=True, preexec_fn=pin)
        finally:
            if cores:
                cores.put(core)
        if done.returncode:
            stop(f"{script.name} ended with status {done.returncode}: {(done.stderr.splitlines() or [''])[-1]}")
        return json.loads((Path(out) / "metrics.json").read_text(encoding="utf-8"))["miou"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--exercises", default="bin_test")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "Dataset")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0, 1, ... (%(default)s of them)")
    parser.add_argument("--folds", type=int, default=1, help="cross-validate in so many folds")
    parser.add_argument("--frameworks", default=FRAMEWORKS)
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (%(default)s); Linux only")
    parser.add_argument("--keep", action="store_true", help="write the numbers of one framework to results.json")
    options = parser.parse_args()
    if options.keep and (options.folds > 1 or options.data != REPOSITORY / "Dataset" or " " in options.frameworks):
        stop("--keep: is for the bundled newts and one of --frameworks, without --data and --folds")
    for name in ("seeds", "folds", "jobs"):
        if vars(options)[name] < 1:
            stop(f"--{name} {vars(options)[name]}: give a whole number from 1 up")
    if options.jobs > 1 and not hasattr(os, "sched_setaffinity"):
        stop(f"--jobs {options.jobs}: only Linux gives each run a core of its own: leave it out")
    names = list(itertools.product(options.exercises.split(), options.frameworks.split()))
    if not names:
        stop("--exercises and --frameworks: name at least one of each")
    scripts = {name: find_answer(*name) for name in names}
    table = Table("exercise", "framework", "mIoU of each seed", "mean", "spread (standard deviation)", "all background")
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(max(1, options.jobs)) as pool:
        some = exercises.load_answer(find_answer(options.exercises.split()[0], "pytorch"))
        folders = [options.data]
        if options.folds > 1:
            folders = deal(some, options.data, options.folds, Path(temporary))
        cores = SimpleQueue() if options.jobs > 1 else None
        for core in sorted(os.sched_getaffinity(0))[: options.jobs] if cores else ():
            cores.put(core)
        runs = list(itertools.product(names, range(options.seeds), folders))
        mious = track(
            pool.map(lambda each: run(scripts[each[0]], each[2], each[1], cores), runs), "running", total=len(runs)
        )
        of_name = dict.fromkeys(names, ())
        for (name, _, _), miou in zip(runs, mious, strict=True):
            of_name[name] += (miou,)
        for (exercise, framework), all_mious in of_name.items():
            seeds = [statistics.mean(all_mious[i : i + len(folders)]) for i in range(0, len(all_mious), len(folders))]
            deviation = f"{statistics.stdev(seeds):.3f}" if len(seeds) > 1 else ""
            nothing = background_miou(exercises.load_answer(find_answer(exercise, "pytorch")), folders)
            each = " ".join(f"{seed:.3f}" for seed in seeds)
            if options.keep:
                results, numbers = read_results(), exercises.load_answer(find_answer(exercise, framework)).NUMBERS
                spread = {"framework": framework, "iterations": numbers["iterations"][0]}
                spread |= {"seeds": list(range(options.seeds)), "miou": seeds}
                results.setdefault("spread", {})[exercise] = spread
                write_results(RESULTS, results)
            table.add_row(exercise, framework, each, f"{statistics.mean(seeds):.3f}", deviation, f"{nothing:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()
