"""How fast streets are read: records against files, and the whole input against a training step that waits for it.

    python benchmarks/street_input.py [--frameworks "pytorch keras"] [--networks unet] [--steps 16] [--data FOLDER]

The first table is of reading alone: every picture of train and its labels, as the two PNG files that street_preprocess
wrote or as the record that street_records made of them, whose sums are checked; in order, or in the order of an epoch;
then with the PNGs decoded, as training needs them. "again" is from the memory in which the system keeps files, "first"
after it was told to forget them (not on Windows and macOS; what a disk keeps in a memory of its own remains).

The second table is of street_train. "input alone" is the processor's time for a batch, read, decoded and augmented,
with nothing else done. A step is one of the answer's own `train`; what it waits is the time from asking for a batch to
having it: with --workers 0 it is made in that time, with --workers 2 processes or threads work ahead.
Each framework is measured in a process of its own. All are medians, without the first steps. Tables are Markdown.

What street_preprocess and street_records wrote is looked for in outputs/, and made there if need be; --data names
another folder that has their folders.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tools"))
from exercises import FRAMEWORKS, answer_path, load_answer  # noqa: E402

WARM_UP = 4  # steps that do not count
WORKERS = (0, 2)


def stop(message):
    """End with one line and status 2."""
    print(f"street_input.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def forget(paths):
    """Let the system forget what it keeps of files in memory."""
    for path in paths:
        with open(path, "rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def time_reading(folder, rounds):
    """Return {what: (megabytes a second first, or None, and again; milliseconds a record again)}."""
    answer = load_answer(answer_path("street_records", "pytorch"))
    pairs, records = (folder / answer_path(name, "pytorch").stem for name in ("street_preprocess", "street_records"))
    metrics = answer.find_stage(records, "02_street_records", "noticed")
    paths = [records / shard["name"] for shard in metrics["shards"]["train"]]
    index = answer.Records(paths)
    counts = [len(offsets) for offsets in index.offsets]
    features = [answer.parse_example(payload) for path in paths for payload in answer.read_shard(path)]
    names = [each["image/filename"].decode() for each in features]
    files = [[pairs / "train" / kind / f"{name}.png" for kind in ("images", "labels")] for name in names]
    order = answer.draw_order(counts, 0, 0)[1]
    starts = {shard: sum(counts[:shard]) for shard in range(len(counts))}

    def read_file(place):
        image, labels = (path.read_bytes() for path in files[place])
        return {"image/filename": b"", "image/encoded": image, "image/segmentation/class/encoded": labels}

    def read_record(shard, number):
        with open(paths[shard], "rb") as file:
            return answer.parse_example(answer.read_record(file, index.offsets[shard][number]))

    drawn = [starts[shard] + number for shard, number in order]
    ways = {
        "files, in order": (files, lambda: [read_file(place) for place in range(len(files))]),
        "records, in order": (
            paths,
            lambda: [answer.parse_example(each) for path in paths for each in answer.read_shard(path)],
        ),
        "files, in a drawn order": (files, lambda: [read_file(place) for place in drawn]),
        "records, in a drawn order": (paths, lambda: [read_record(*record) for record in order]),
        "files, decoded": (files, lambda: [answer.decode(read_file(place)) for place in drawn]),
        "records, decoded": (paths, lambda: [answer.decode(read_record(*record)) for record in order]),
    }
    size = sum(len(each["image/encoded"]) + len(each["image/segmentation/class/encoded"]) for each in features) / 1e6
    found = {}
    for what, (sources, read) in ways.items():
        seconds = {"first": [], "again": []}
        for _ in range(rounds):
            for when in seconds:
                if when == "first" and not hasattr(os, "posix_fadvise"):
                    continue
                if when == "first":
                    forget(path for each in sources for path in (each if isinstance(each, list) else [each]))
                start = time.perf_counter()
                read()
                seconds[when].append(time.perf_counter() - start)
        again = median(seconds["again"])
        found[what] = (
            size / median(seconds["first"]) if seconds["first"] else None,
            size / again,
            1000 * again / len(names),
        )
    return found


def measure(framework, network, workers, steps, data):
    """Return the milliseconds of each step of street_train, of each wait in it, and of each batch by input alone."""
    script = load_answer(answer_path("street_train", framework))
    with tempfile.TemporaryDirectory() as out:
        sys.argv = [str(answer_path("street_train", framework)), "--device", "cpu", "--network", network, "--out", out]
        sys.argv += ["--workers", str(workers), "--iterations", str(WARM_UP + steps)]
        sys.argv += ["--data", str(data / answer_path("street_records", framework).stem)]
        options = script.read_options()
        metrics = script.find_stage(options.data, script.EARLIER, "noticed")
        shards = {
            split: [options.data / shard["name"] for shard in metrics["shards"][split]] for split in script.SPLITS
        }
        records = {split: script.Records(paths) for split, paths in shards.items()}
        draw_batches, waits, done = script.draw_batches, [], []

        def timed_batches(*arguments):
            batches = draw_batches(*arguments)
            while True:
                start = time.perf_counter()
                batch = next(batches, None)
                if batch is None:
                    return
                waits.append(time.perf_counter() - start)
                yield batch
                done.append(time.perf_counter())  # train has come back for the next batch: its step is done

        script.draw_batches = timed_batches
        script.validate = lambda *_: ({"miou": 0.0, "pixel_accuracy": 0.0}, {})
        network = script.build_network(script.np.random.default_rng(0), len(metrics["classes"]), options)
        script.train(network, records, metrics, options)
        times = {"steps": [b - a for a, b in itertools.pairwise(done)], "waits": waits[:]}
        if not workers:
            clock = [time.process_time()]
            for _ in draw_batches(records["train"], 0, options):
                clock.append(time.process_time())
            times["alone"] = [b - a for a, b in itertools.pairwise(clock)]
    return {name: [1000 * each for each in seconds[WARM_UP:]] for name, seconds in times.items()}


def measure_apart(*arguments):
    """Return what measure does, measured in a process of its own."""
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    if done.returncode:
        stop((done.stderr.splitlines() or ["a child ended without a word"])[-1].removeprefix("street_input.py: "))
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--frameworks", default=" ".join(FRAMEWORKS), help="(%(default)s)")
    parser.add_argument("--networks", default="unet deeplab", help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=16, help="steps that count (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is read (%(default)s)")
    parser.add_argument("--data", type=Path, default=Path("outputs"), help="folder of what was written (%(default)s)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        *arguments, data = json.loads(options.child)
        print(json.dumps(measure(*arguments, Path(data))))
        return
    frameworks, networks = options.frameworks.split(), options.networks.split()
    for name, values, known in (("frameworks", frameworks, FRAMEWORKS), ("networks", networks, ("unet", "deeplab"))):
        if set(values) - set(known):
            stop(f"--{name} {' '.join(values)}: give some of {', '.join(known)}")
    for name in ("steps", "rounds"):
        if vars(options)[name] < 1:
            stop(f"--{name} {vars(options)[name]}: give a whole number from 1 up")
    table = Table("what is read", "first, MB/s", "again, MB/s", "again, ms a record", box=MARKDOWN)
    for what, (first, again, each) in time_reading(options.data, options.rounds).items():
        table.add_row(what, "" if first is None else f"{first:.0f}", f"{again:.0f}", f"{each:.2f}")
    Console(width=120).print(table)
    header = ("framework", "network", "input alone")
    header += tuple(f"{what}, {workers} workers" for workers in WORKERS for what in ("step", "waiting"))
    table, cases = Table(*header, box=MARKDOWN), [(f, n) for f in frameworks for n in networks]
    for framework, network in track(cases, description="measuring"):
        found = [measure_apart(framework, network, n, options.steps, str(options.data)) for n in WORKERS]
        times = [f"{median(each[what]):.1f}" for each in found for what in ("steps", "waits")]
        table.add_row(framework, network, f"{median(found[0]['alone']):.1f}", *times)
    Console(width=120).print(table)
    print(f"milliseconds a batch, medians of {options.steps} steps, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
