"""Draw the figures of the lesson from what the answers do: answers/answer_<exercise>.png for each that predicts, and
with all exercises and frameworks, the drawings in assets/ too.

    python tools/draw_figures.py [--exercises "unetlike segnet"] [--frameworks "pytorch keras"] [--jobs 2]

Every answer runs at its defaults (unet and segnet for more iterations, to find newts: see exercises.toml), unless
outputs/lesson/ holds what an answer of the same fingerprint wrote, from the same newts and under the same requirements.
A figure shows two test pictures with their truth and what each framework made of them. The numbers of the runs go to
assets/results.json beside the answers, with the fingerprint of the answer that gave them. With --jobs N, N answers run
side by side, a core each. All exercises take an hour or so on two cores.
"""

import argparse
import csv
import functools
import hashlib
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import cv2
import fingerprints
import numpy as np
import schematics
import schematics_graph
import schematics_street
import schematics_voc
from exercises import FRAMEWORKS, answer_path, find_exercise, find_subject, list_earlier, read_exercises
from matplotlib.figure import Figure
from results import (
    REPOSITORY,
    cut_middle,
    cut_panels,
    find_predictions,
    find_tests,
    read_results,
    run_in_turn,
    run_measured,
    shows_only,
    write_results,
)
from schematics import write_figure

PICTURES = ("madara/madara_0010", "akahara/akahara_0011")


def stop(message):
    """End with one line and status 2."""
    print(f"draw_figures.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def find_pictures(outs, data, learnt):
    """Return the folders of images and of masks that all answers were tested on, and the names of two pictures.

    data is the folder that the answers read by default. Of VOC's pictures those are taken that show no other classes
    than the learnt ones. The folders are None where the answers' own pictures show input and truth.
    """
    out = next(iter(outs.values()))
    found = (path.stem for path in sorted(find_predictions(out).glob("*.png")))
    tests = find_tests([out, data])
    if tests is None:
        return None, None, list(itertools.islice(found, len(PICTURES)))
    images, masks = tests
    if images.parent == REPOSITORY / "Dataset/test":
        return images, masks, PICTURES
    if masks.name == "SegmentationClass":
        found = (name for name in found if shows_only(masks / f"{name}.png", learnt))
    return images, masks, list(itertools.islice(found, len(PICTURES)))


@functools.cache
def inputs_hash(script, *earlier):
    """Return the SHA-256, as 64 hex digits, of what the numbers of an answer depend on beside its code.

    earlier are the answers that run before it.
    """
    digest = hashlib.sha256((REPOSITORY / "requirements.txt").read_bytes())
    for path in sorted(path for part in ("train", "test") for path in (REPOSITORY / "Dataset" / part).rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(REPOSITORY).as_posix()}\0".encode() + path.read_bytes())
    texts = "".join(path.read_text(encoding="utf-8") for path in (*earlier, script))
    for draws in ("draw_voc.py", "draw_streets.py"):  # what draws the images of an answer that has none
        if draws in texts:
            digest.update((REPOSITORY / "Dataset" / draws).read_bytes())
    return digest.hexdigest()


def run_answer(script, out, fingerprint, cores, *more, earlier=()):
    """Return the numbers of an answer's run with more options; run it unless out holds what the same run wrote.

    Before it run the earlier answers, each on what the one before it wrote, and it on that of the last. The run has one
    of the queue of cores to itself, or all of the machine where there is no queue.
    """
    measured = out / "measured.json"
    run = {"inputs": inputs_hash(script, *earlier), "more": list(more), "fingerprint": fingerprint}
    try:
        kept = json.loads(measured.read_text(encoding="utf-8"))
        is_same = [kept[key] for key in ("inputs", "more")] == [run[key] for key in ("inputs", "more")]
        is_same = is_same and not fingerprints.differ(kept["fingerprint"], fingerprint)
    except (OSError, ValueError, KeyError):
        is_same = False
    if not is_same:
        print(" ".join(["running", script.name, *more]), flush=True)
        measured.unlink(missing_ok=True)  # a run that is interrupted must not pass for a whole one
        # On the CPU everywhere, as a learner without a GPU.
        command = [sys.executable, str(script), "--out", str(out), "--device", "cpu", *more]
        try:
            command += ["--data", str(run_in_turn(earlier, out.parent))] if earlier else []
        except RuntimeError as error:
            stop(error)
        core = cores and cores.get()
        pin = {"preexec_fn": lambda: os.sched_setaffinity(0, {core})} if cores else {}
        try:
            status, errors, seconds, memory = run_measured(command, **pin)
        finally:
            if cores:
                cores.put(core)
        if status:
            stop(f"{script.name} ended with status {status}: {(errors.splitlines() or [''])[-1]}")
        kept = run | {"seconds": seconds, "peak_memory_mb": memory}
        measured.write_text(json.dumps(kept), encoding="utf-8")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    with (out / "loss.csv").open(newline="", encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    options = metrics.pop("options")
    numbers = {"iterations": len(losses), "seed": int(options["seed"]), "parameters": fingerprint["parameters"]}
    numbers |= {key: kept[key] for key in ("seconds", "peak_memory_mb")}
    # One batch's loss says little of where training ended; a twentieth of them says more.
    last = losses[-max(1, len(losses) // 20) :]
    numbers |= {"first_loss": losses[0], "last_loss": sum(last) / len(last)}
    return {name: value for name, value in metrics.items() if name != "answer"} | numbers | {"fingerprint": fingerprint}


def measure_augmentation(script, out, fingerprint):
    """Measure what each --augment does to an answer, unless out holds what the same code gave."""
    tool, ran = REPOSITORY / "tools/measure_augmentation.py", out.with_suffix(".txt")
    run = json.dumps([inputs_hash(script), hashlib.sha256(tool.read_bytes()).hexdigest(), fingerprint["losses"][-1]])
    if not ran.exists() or ran.read_text(encoding="utf-8") != run:
        print(f"measuring --augment with {script.name}", flush=True)
        ran.unlink(missing_ok=True)
        if subprocess.run([sys.executable, str(tool), "--out", str(out), "--device", "cpu"]).returncode:
            stop(f"{tool.name} ended as it says above")
        ran.write_text(run, encoding="utf-8")


def describe_machine(jobs):
    """Return what the times depend on: {"cores": of a run, "memory_gb": ...}, None where the system does not tell."""
    has_memory = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if has_memory else None
    return {"cores": 1 if jobs > 1 else os.cpu_count(), "memory_gb": memory and round(memory / 2**30)}


def keep_results(path, metrics, jobs):
    """Put the numbers of these answers, {answer: numbers}, into a results.json; drop answers that are no more."""
    try:
        results = read_results(path)
    except (OSError, ValueError):
        results = {"answers": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    known = {f"{exercise.name}_{framework}" for exercise in read_exercises() for framework in FRAMEWORKS}
    answers = {name: kept for name, kept in (results["answers"] | metrics).items() if name in known}
    write_results(path, results | {"machine": describe_machine(jobs), "answers": dict(sorted(answers.items()))})


def read_picture(path):
    """Return a picture as (height, width, 3) uint8, red-green-blue."""
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def brighten(mask):
    """Return a mask in colours that are told apart on a page: 127 becomes 255."""
    return np.minimum(mask.astype(int) * 2, 255).astype(np.uint8)


def draw_exercise(path, outs, metrics, data=REPOSITORY / "Dataset"):
    """Write the figure of one exercise; outs and metrics are by framework, data is the folder that the answers read."""
    images, masks, names = find_pictures(outs, data, next(iter(metrics.values())).get("iou", ()))
    is_voc = images is not None and images.name == "JPEGImages"  # the middle part may have been predicted alone
    lighten = np.asarray if images is None or is_voc else brighten
    if images is None:
        pictures, truths = zip(*(cut_panels(next(iter(outs.values())), name) for name in names), strict=True)
    else:
        pictures = [read_picture(next(images.glob(f"{name}.*"))) for name in names]
        truths = [read_picture(masks / f"{name}.png") for name in names]
    if is_voc:
        for i, name in enumerate(names):
            height, width = read_picture(find_predictions(next(iter(outs.values()))) / f"{name}.png").shape[:2]
            pictures[i], truths[i] = (cut_middle(image, width / height) for image in (pictures[i], truths[i]))
    heights = [picture.shape[0] / picture.shape[1] for picture in pictures]
    columns = 2 + len(outs)
    figure = Figure(figsize=(1.7 * columns, 1.7 * sum(heights) + 0.5), layout="constrained", dpi=110)
    grid = figure.subplots(len(names), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for number, (row, name, picture, truth) in enumerate(zip(grid, names, pictures, truths, strict=True)):
        if path.stem.startswith("answer_bin_"):  # there both species are one class, white
            truth = np.repeat(127 * (truth.max(axis=2, keepdims=True) > 0), 3, axis=2)
        panels = {"input": picture, "truth": lighten(truth)}
        for framework, out in outs.items():
            of_digit = metrics[framework].get("mean_digit_iou")  # the measure of the answers that have it
            value = f"IoU {of_digit:.3f}" if of_digit is not None else f"mIoU {metrics[framework]['miou']:.3f}"
            title = f"{FRAMEWORKS[framework]}\n{value}"
            prediction = lighten(read_picture(find_predictions(out) / f"{name}.png"))
            size = picture.shape[1], picture.shape[0]
            panels[title] = cv2.resize(prediction, size, interpolation=cv2.INTER_NEAREST_EXACT)
        for axes, (title, panel) in zip(row, panels.items(), strict=True):
            axes.imshow(panel)
            axes.set(xticks=[], yticks=[])
            if number == 0:
                axes.set_title(title, fontsize=9)
    figure.savefig(path)
    print(f"wrote {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    everything = " ".join(exercise.name for exercise in read_exercises() if exercise.predicts)
    parser.add_argument("--exercises", default=everything, help="(%(default)s)")
    parser.add_argument("--frameworks", default=" ".join(FRAMEWORKS), help="(%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (%(default)s); Linux only")
    options = parser.parse_args()
    if options.jobs < 1:
        stop(f"--jobs {options.jobs}: give a number from 1 up")
    if options.jobs > 1 and not hasattr(os, "sched_setaffinity"):
        stop(f"--jobs {options.jobs}: only Linux gives each run a core of its own: leave it out")
    if not options.exercises.split() or not options.frameworks.split():
        stop("--exercises and --frameworks: name at least one of each")
    try:
        exercises = [find_exercise(name) for name in options.exercises.split()]
    except ValueError as error:
        stop(f"--exercises: {error}")
    for exercise in exercises:
        if not exercise.predicts:
            stop(f"--exercises: {exercise.name} predicts nothing: leave it out")
    for framework in options.frameworks.split():
        if framework not in FRAMEWORKS:
            stop(f"--frameworks: there is no {framework!r}; there is {', '.join(FRAMEWORKS)}")
    names = [exercise.name for exercise in exercises]
    frameworks = options.frameworks.split()
    cores = SimpleQueue() if options.jobs > 1 else None
    for core in sorted(os.sched_getaffinity(0))[: options.jobs] if cores else ():
        cores.put(core)
    with ThreadPoolExecutor(options.jobs) as pool:
        prints = dict(
            zip(frameworks, pool.map(lambda name: fingerprints.take_in_child(name, names), frameworks), strict=True)
        )

        def run(exercise, framework):
            script = answer_path(exercise, framework)
            more = [word for name, value in exercise.figure_options.items() for word in (f"--{name}", str(value))]
            out = REPOSITORY / "outputs/lesson" / script.stem
            earlier = list_earlier(exercise, framework)
            return out, run_answer(script, out, prints[framework][exercise.name], cores, *more, earlier=earlier)

        runs = {
            (exercise, framework): pool.submit(run, exercise, framework)
            for exercise in exercises
            for framework in frameworks
        }
        try:
            done = {key: future.result() for key, future in runs.items()}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for exercise in exercises:
        outs = {framework: done[exercise, framework][0] for framework in frameworks}
        metrics = {framework: done[exercise, framework][1] for framework in frameworks}
        entry = find_subject(exercise.subject)
        subject = REPOSITORY / entry.folder
        draw_exercise(subject / f"answers/answer_{exercise.name}.png", outs, metrics, REPOSITORY / entry.data)
        answers = {f"{exercise.name}_{framework}": numbers for framework, numbers in metrics.items()}
        keep_results(subject / "assets/results.json", answers, options.jobs)
    if options.exercises == everything and options.frameworks == " ".join(FRAMEWORKS):
        script = answer_path("unetlike", "pytorch")
        measure_augmentation(script, REPOSITORY / "outputs/lesson/augmentation.csv", prints["pytorch"]["unetlike"])
        for subject in (schematics, schematics_graph, schematics_voc, schematics_street):
            for name in subject.FIGURES:
                print(f"wrote {write_figure(name, subject.ASSETS, subject.FIGURES)}")


if __name__ == "__main__":
    main()
