"""Run the answers to one exercise in every framework, one after another, and compare what they did.

The answers are run as a learner would run them. What comes of it lies in outputs/compare/<exercise>/:
index.html (self-contained), comparison.png (curves and pictures, for a README) and one folder per framework.

Exit status: 0 when at least one answer ended well (a framework that is missing or fails is shown as such),
1 when none did, 2 when an option is wrong, 130 when interrupted.
"""

import argparse
import ast
import base64
import csv
import datetime
import functools
import importlib.metadata
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit(print("compare.py: interrupted", file=sys.stderr) or 130))

import cv2
import jinja2
import matplotlib
import numpy as np
from exercises import FRAMEWORKS, UnknownExercise, answer_path, find_exercise, find_subject, list_earlier
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from results import VOID_COLOUR, cut_middle, cut_panels, find_predictions, find_tests, shows_only, wait_measured
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
# Iterations of each answer by default, where its own default is not smaller: with these the default comparison,
# unetlike in all four frameworks, ends within five minutes on two cores, and Chainer takes most of them. It is still a
# whole run of the recipe: the warm-up and the decay of the learning rate scale with the iterations.
MOST_ITERATIONS = 400
MOST_PICTURES = 16
FAVOURITES = ("madara_0010", "akahara_0010", "akahara_0011")  # first choice for comparison.png
CLOSE = 1e-3  # the relative difference of two losses up to which the page calls curves equal
LONGEST_SIDE = 720  # of a picture in the page, in pixels
UNKNOWN = "-"  # a letter that every terminal has
DOUBLE = "In double precision the curves stay together over the whole run: `make parity` shows it."
NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
MODULES = {"pytorch": "torch"}  # of a framework that is imported under another name

# Early on the curves coincide. So each is narrower than the one below it, and dashed in its own way: all stay visible.
# Width, dashes, colour on a light ground and on a dark one; the colours are told apart by the colour-blind too.
LINES = {
    "pytorch": (4.2, "-", "#74bdec", "#24689e"),
    "tensorflow": (2.8, (0, (6, 1)), "#0b5fb3", "#62b5f5"),
    "keras": (1.7, (0, (4, 2)), "#f0701e", "#ff8a3a"),
    "chainer": (0.9, (0, (1.5, 3)), "#15181c", "#ffffff"),
}
MARK = ("#8250df", "#c297ff")  # of what belongs to no one framework
INK, RULE = ("#24292f", "#d5dae0"), ("#d7dbe0", "#3a414a")

# Label, key in metrics.json, format, whether the least is marked. Losses and scores bear no mark: they should be equal.
MEASURES = (
    ("version", "version", "", False),
    ("backend", "backend", "", False),  # what Keras computes with
    ("device", "device", "", False),
    ("final loss", "final_loss", "#.6g", False),
    ("mIoU", "miou", ".4f", False),
    ("mIoU, {}", "phases", ".4f", False),  # one row per training that a run consists of
    ("mIoU, crops, faults: {}", "faults", ".4f", False),  # one row per fault in measuring
    ("IoU {}", "iou", ".4f", False),  # one row per class
    ("mean IoU of the digit", "mean_digit_iou", ".4f", False),
    ("pixel accuracy", "pixel_accuracy", ".4f", False),
    ("seconds, whole run", "seconds", ".1f", True),
    ("peak memory, MB", "peak_memory_mb", ",.0f", True),
    ("parameters", "parameters", ",.0f", False),
    ("lines of code", "lines", "d", True),
)


@dataclass
class Result:
    """What one framework's answer did. `error` is empty when it ended well; only then is the rest filled."""

    framework: str
    out: Path
    error: str = ""
    metrics: dict = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)  # by iteration
    validations: dict[int, float] = field(default_factory=dict)  # the mIoU by iteration, where the answer validates

    @property
    def title(self):
        """The name of the framework as it writes itself."""
        return FRAMEWORKS[self.framework]


# ---- running the answers ----


def shorten(text):
    """The text without the paths to the repository and to the home folder: pages get shown to others."""
    home = os.path.expanduser("~")  # "~" itself for a user without a home folder, where Path.home() would raise
    return text.replace(f"{ROOT}{os.sep}", "").replace(f"{home}{os.sep}", f"~{os.sep}")


def quote(words):
    """The words of a command as one line for the shell of this system."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def last_line(stderr):
    """The last line that is not blank, of the bytes that a process wrote to stderr; '' where there is none."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stderr.decode("utf-8", errors="replace"))
    return next((line.strip() for line in reversed(re.split(r"[\r\n]+", text)) if line.strip()), "")


def run_answer(script, options):
    """Run one answer to its end. Its stdout is ours; its stderr is passed on to a terminal as it comes.

    Returns one line that says why it failed, '' when it ended well; and {"seconds", "peak_memory_mb"} of the whole run.
    """
    start = time.perf_counter()
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": str(shutil.get_terminal_size().columns)}
    process = subprocess.Popen(
        [sys.executable, str(script), *options], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    tail = b""
    try:
        # Bytes, not lines: a progress bar ends no line until it is done.
        while chunk := process.stderr.read1():
            tail = (tail + chunk)[-20_000:]
            if sys.stderr.isatty():
                sys.stderr.buffer.write(chunk)
                sys.stderr.flush()
        memory = wait_measured(process)
        status, measured = process.returncode, {"seconds": time.perf_counter() - start, "peak_memory_mb": memory}
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stderr.close()
    if status and not sys.stderr.isatty():
        # A log has no use for the bar's every state, but for the traceback.
        sys.stderr.write(re.sub(r"[^\n]*\r(?!\n)", "", tail.decode("utf-8", errors="replace")))
        sys.stderr.flush()
    if status < 0:
        return f"ended by {signal.Signals(-status).name}: {last_line(tail)}", measured
    return (last_line(tail) or f"exit status {status}, without a word") if status else "", measured


def find_version(module):
    """The installed version of what is imported as `module`, found without importing it; None where there is none."""
    distributions = importlib.metadata.packages_distributions().get(module)  # tensorflow is also in tensorflow-cpu
    return importlib.metadata.version(distributions[0]) if distributions else None


def find_backend():
    """What the Keras answers compute with, and its version, as in "tensorflow 2.21.0"."""
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    return " ".join(filter(None, (backend, find_version(backend))))


def count_lines(script):
    """Lines of a script that are neither blank nor a comment alone."""
    code = script.read_text(encoding="utf-8").splitlines()
    return sum(bool(line.strip()) and line.strip()[0] != "#" for line in code)


def read_curve(path):
    """Read a loss.csv as {iteration: loss}; {} when there is no such file. Raises ValueError naming a bad line.

    Of a validation.csv, which has more columns, the second is taken, the mIoU.
    """
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    curve = {}
    for number, row in enumerate(rows[1:], start=2):
        try:
            if len(row) != len(rows[0]):
                raise ValueError
            curve[int(row[0])] = float(row[1])
        except (ValueError, IndexError):
            what = f"an iteration and its {rows[0][1]}" if len(rows[0]) > 1 else "what an answer writes"
            raise ValueError(f"{path.name}, line {number}: {','.join(row)!r} is not {what}") from None
    return curve


def compare_framework(exercise, framework, script, out, options):
    """Run one framework's answer in a folder free of earlier results, and read what it wrote: a Result."""
    result = Result(framework, out)
    if script is None:
        result.error = "there is no such answer"
        return result
    for name in ("metrics.json", "loss.csv", "validation.csv"):
        (out / name).unlink(missing_ok=True)
    for folder in (out / "predictions", out / "results", out / "pictures", out / "test"):
        if folder.exists():
            shutil.rmtree(folder)
    out.mkdir(parents=True, exist_ok=True)
    error, earlier = "", [script.with_name(path.name) for path in list_earlier(exercise, framework, ROOT)[-1:]]
    # What the answer reads by default and would make first itself is made here, so that its time does not count.
    if earlier and "--data" not in options and not Path("outputs", earlier[0].stem, "metrics.json").exists():
        error = run_answer(earlier[0], [])[0] if earlier[0].exists() else ""
    if not error:
        error, measured = run_answer(script, [*options, "--out", str(out)])
    result.error = shorten(error)
    if result.error:
        return result
    try:
        result.metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        result.losses = read_curve(out / "loss.csv")
        result.validations = read_curve(out / "validation.csv")
        result.metrics |= measured | {
            "version": find_version(MODULES.get(framework, framework)),
            "backend": find_backend() if framework == "keras" else None,
            "device": result.metrics.get("options", {}).get("device"),
            "parameters": exercise.parameters,
            "lines": count_lines(script),
        }
        build_rows([result])  # what the table cannot show is found here, not when the others wait for their page
    except FileNotFoundError:
        result.error = "ended well, but wrote no metrics.json"
    except (ValueError, TypeError, AttributeError) as error:
        result = Result(framework, out, f"ended well, but its results cannot be read: {error}")
    return result


# ---- numbers ----


def build_rows(results):
    """The table: [(label, [(text, marked), ...one per result])]; measures which no result has are left out."""
    rows = []
    for label, key, form, mark_least in MEASURES:
        measured = {label: [result.metrics.get(key) for result in results]}
        if "{}" in label:
            parts = [result.metrics.get(key) or {} for result in results]
            names = dict.fromkeys(itertools.chain(*parts))  # a set that keeps the order
            values = {name: [part.get(name) for part in parts] for name in names}
            measured = {
                label.format(name): [value["miou"] if isinstance(value, dict) else value for value in values[name]]
                for name in names
            }
        for name, values in measured.items():
            texts = [UNKNOWN if value is None else format(value, form) for value in values]
            least = None
            if mark_least and len(set(texts) - {UNKNOWN}) > 1:
                least = format(min(value for value in values if value is not None), form)
            if set(texts) != {UNKNOWN}:
                rows.append((name, [(text, text == least) for text in texts]))
    return rows


def find_differences(curves):
    """How far the curves {framework: {iteration: loss}} lie apart: {iteration: (difference, one, other)}, ascending.

    That is the largest relative difference of any two frameworks that both have a finite loss at that iteration, and
    the two. Iterations at which fewer than two have one are left out.
    """
    differences = {}
    for iteration in sorted(set().union(*curves.values())):
        losses = {name: curve.get(iteration, math.nan) for name, curve in curves.items()}
        pairs = itertools.combinations([name for name, loss in losses.items() if math.isfinite(loss)], 2)
        relative = [
            (abs(losses[one] - losses[other]) / (max(abs(losses[one]), abs(losses[other])) or 1), one, other)
            for one, other in pairs
        ]
        if relative:
            differences[iteration] = max(relative, key=lambda entry: entry[0])
    return differences


def find_crossing(differences):
    """The first iteration at which two curves are further apart than CLOSE; None where there is none."""
    return next((iteration for iteration, (relative, *_) in differences.items() if relative > CLOSE), None)


def describe_curves(curves, pretrained=False):
    """Sentences on how far any two of the curves {framework: {iteration: loss}} lie apart; [] without two curves.

    pretrained: whether each begins with the weights of an earlier training in the same framework.
    """
    if len(curves) < 2:
        return []
    differences = find_differences(curves)
    sentences, crossing = [], find_crossing(differences)
    if not differences:
        sentences.append("No two curves have a finite loss at the same iteration, so there is nothing to compare.")
    elif not any(relative for relative, *_ in differences.values()):
        sentences.append("No difference between any two loss curves, to the last digit written.")
    else:
        where = max(differences, key=lambda iteration: differences[iteration][0])
        relative, *pair = differences[where]
        losses = ", ".join(f"{curves[name][where]:.4g} in {FRAMEWORKS[name]}" for name in pair)
        largest = f"Largest difference: {100 * relative:.2g} %, at iteration {where} ({losses})."
        if crossing == min(differences):
            why = "for they begin with weights of a training before, which rounding has parted"
            why = f": {why}." if pretrained else ", which rounding does not explain."
            sentences += [
                f"Already the losses of iteration {crossing} are more than {100 * CLOSE:g} % apart{why}",
                largest,
            ]
        elif crossing is None:
            sentences += [f"The loss curves agree to {100 * CLOSE:g} % over the whole run.", largest, DOUBLE]
        else:
            _, *pair = differences[crossing]
            before = max(iteration for iteration in differences if iteration < crossing)
            sentences += [
                f"The loss curves agree to {100 * CLOSE:g} % up to iteration {before}; at iteration {crossing} the "
                f"first two, {' and '.join(FRAMEWORKS[name] for name in pair)}, are further apart.",
                f"{largest} That is rounding in single precision, which training amplifies. {DOUBLE}",
            ]
    if len({frozenset(losses) for losses in curves.values()}) > 1:
        lengths = ", ".join(f"{FRAMEWORKS[framework]} {len(losses)}" for framework, losses in curves.items())
        sentences.append(f"The curves differ in length ({lengths}); any two are compared where both have a loss.")
    for framework, losses in curves.items():
        broken = [iteration for iteration, loss in losses.items() if not math.isfinite(loss)]
        if broken:
            sentences.append(
                f"{FRAMEWORKS[framework]}: the loss is not finite at {len(broken)} of {len(losses)} "
                f"iterations, first at {min(broken)}."
            )
    return sentences


def read_spread(exercise):
    """What seeds alone do to the mIoU of an exercise, as benchmarks/seeds.py measured it; None where it is not known.

    {"framework": "pytorch", "miou": [0.78, 0.79], "seeds": [0, 1], "iterations": 700}, of assets/results.json.
    """
    path = ROOT / find_subject(exercise.subject, ROOT / "exercises.toml").folder / "assets" / "results.json"
    try:
        spread = json.loads(path.read_text(encoding="utf-8"))["spread"][exercise.name]
        right = spread["framework"] in FRAMEWORKS and len(spread["miou"]) == len(spread["seeds"]) > 1
        right &= all(map(math.isfinite, spread["miou"])) and all(isinstance(seed, int) for seed in spread["seeds"])
        return spread if right else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe_results(exercise, results, options):
    """Sentences on how far the mIoU of the results lie apart, beside what seeds alone do; [] without two of them."""
    mious = [result.metrics["miou"] for result in results if result.metrics.get("miou") is not None]
    if len(mious) < 2:
        return []
    apart = max(mious) - min(mious)
    own = ROOT / find_subject(exercise.subject, ROOT / "exercises.toml").data
    own_data = options.data in (None, own.resolve())  # seeds were measured on nothing else
    spread = read_spread(exercise) if own_data else None
    here = f"the {NUMBER_WORDS[len(mious)]} frameworks here"
    distance = f"{apart:.3f}" if apart >= 0.0005 else "less than 0.001"
    if spread is None:
        sentences = [f"In mIoU {here} lie {distance} apart."]
        if exercise.subject == "semaseg":  # the benchmark trains on newts alone
            arguments = ["--frameworks", "pytorch", "--keep"] if own_data else ["--data", str(options.data)]
            command = quote(["python", "benchmarks/seeds.py", "--exercises", exercise.name, *arguments])
            sentences.append(f"How much it varies with the seed alone, `{shorten(command)}` measures.")
        return [" ".join(sentences)]
    low, high, seeds = min(spread["miou"]), max(spread["miou"]), spread["seeds"]
    in_turn = seeds == list(range(seeds[0], seeds[-1] + 1))
    named = f"{seeds[0]} to {seeds[-1]}" if in_turn else ", ".join(map(str, seeds))
    there, mine = spread.get("iterations"), options.iterations
    more = "no further than the seeds" if apart <= high - low else "further than the seeds"
    return [
        f"Over seeds {named}, {FRAMEWORKS[spread['framework']]} reached an mIoU of {low:.3f} to {high:.3f}"
        + (f" (in {there} iterations; here {mine})" if there and there != mine else "")
        + f"; {here} lie {distance} apart, {more}."
    ]


# ---- pictures ----


def read_image(path, flags=cv2.IMREAD_COLOR):
    """Decode an image file to (height, width, 3) RGB or (height, width) grey, uint8; None where there is none."""
    try:
        # From bytes, since imread fails on paths beyond ASCII on Windows.
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flags) if path else None
    except (OSError, cv2.error):
        return None
    return image if image is None or image.ndim == 2 else np.ascontiguousarray(image[..., 2::-1])


def list_images(folder):
    """Image files below a folder, hidden ones passed over, as the answers name them: {name: path}.

    A name is the path below the folder in lower case, composed (NFC), without suffix.
    """
    walk = os.walk(folder, followlinks=True)
    files = sorted(Path(parent, file) for parent, _, files in walk for file in files)
    return {
        unicodedata.normalize("NFC", path.relative_to(folder).with_suffix("").as_posix().lower()): path
        for path in files
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def overlap(prediction, truth):
    """IoU of one picture: pixels that both give to the same class, over those that either gives to one but background.

    prediction: (height, width) or (height, width, 3); truth: the same of any size, resized to the prediction's. Where
    the truth is void no pixel counts.
    """
    truth = cv2.resize(truth, prediction.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    prediction, truth = (mask.reshape(*mask.shape[:2], -1).astype(int) for mask in (prediction, truth))
    same = np.abs(prediction - truth).max(axis=2) < 32  # 127 and 128 are one colour
    union = ((prediction.max(axis=2) > 0) | (truth.max(axis=2) > 0)) & (truth != VOID_COLOUR).any(axis=2)
    return (same & union).sum() / union.sum() if union.any() else math.nan


def share_right(prediction, truth):
    """Share of pixels that both (height, width, 3) paint alike, of those that are not black in the truth: void."""
    valid = truth.any(axis=2)
    return (prediction == truth).all(axis=2)[valid].mean() if valid.any() else math.nan


def brighten(mask):
    """A mask to look at, (height, width, 3): the colours of 127, dark beside black, at twice their brightness."""
    mask = np.stack([mask] * 3, axis=2) if mask.ndim == 2 else mask
    painted = mask.max(axis=2, keepdims=True) > 0
    return np.where(painted, 255 - (255 - np.minimum(mask.astype(int) * 2, 255)) * 3 // 4, 0).astype(np.uint8)


def make_cell(label, image, kind, ratio=None, note="", bright=True):
    """One picture of the grid: uint8 RGB, grey or None, of kind photo, mask or plot, shown at ratio width / height.

    A mask is shown brighter than it is, if bright.
    """
    uri = ""
    if image is not None:
        ratio = ratio or image.shape[1] / image.shape[0]
        image = brighten(image) if kind == "mask" and bright else image
        scale = LONGEST_SIDE / max(image.shape)
        if scale < 1:
            way = cv2.INTER_NEAREST_EXACT if kind == "mask" else cv2.INTER_AREA
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=way)
        suffix, media = (".jpg", "image/jpeg") if kind == "photo" else (".png", "image/png")
        uri = to_data_uri(cv2.imencode(suffix, image[..., ::-1])[1].tobytes(), media)
    cell = {"label": label, "image": image, "kind": kind, "ratio": ratio or 1, "note": note, "uri": uri}
    return cell | {"bright": bright}


def make_grid(results, data):
    """Rows of pictures [(name, [cell, ...])], at most MOST_PICTURES of them, and how many there would be.

    A row holds input, truth and each framework's prediction; where an exercise predicts nothing, each framework's
    own picture. data is None for answers that make their images: they write what they test on as a data folder has it.
    Of VOC's images an answer may have predicted the middle part alone, which is then shown.
    """
    tests = find_tests([data] if data else [result.out for result in results])
    images, masks = (list_images(folder) for folder in tests) if tests else ({}, {})
    is_newts = bool(tests) and tests[0].parent.name == "test"  # whose masks are dark
    is_voc = bool(tests) and tests[0].name == "JPEGImages"
    predictions = {}
    for result in results:
        files = list_images(find_predictions(result.out))
        predictions[result.title] = {name.removeprefix("test/"): path for name, path in files.items()}
    plots = {result.title: list_images(result.out / "pictures") for result in results}
    predicted = [name for name in images if any(name in files for files in predictions.values())]
    panels = {}  # input and truth where the answers' own pictures show them, and no folder does
    if not tests:
        for name in sorted(set().union(*predictions.values())):
            panels[name] = next(filter(None, (cut_panels(result.out, name) for result in results)), None)
        predicted = [name for name, pair in panels.items() if pair]
    if is_voc:  # of its images those that show no class which the answer has not learnt
        learnt = {name for result in results for name in result.metrics.get("iou") or ()}
        predicted = [name for name in predicted if name in masks and shows_only(masks[name], learnt)]
    plotted = sorted(set().union(*plots.values()))
    names = predicted or [name for name in plotted if name.startswith("test/")] or plotted
    rows = []
    for index in np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_PICTURES)).round().astype(int)):
        name = names[index]
        if not predicted:
            rows.append(
                (name, [make_cell(owner, read_image(files.get(name)), "plot") for owner, files in plots.items()])
            )
            continue
        found = {owner: read_image(files.get(name), cv2.IMREAD_UNCHANGED) for owner, files in predictions.items()}
        photo, truth = panels.get(name) or (read_image(images[name]), read_image(masks.get(name)))
        sizes = [image.shape[:2] for image in found.values() if image is not None]
        if is_voc and sizes:
            height, width = sizes[0]
            photo, truth = (image if image is None else cut_middle(image, width / height) for image in (photo, truth))
        if truth is not None and any(image is not None and image.ndim == 2 for image in found.values()):
            truth = np.where(truth.max(axis=2) > 0, 255, 0).astype(np.uint8)
        cells = [make_cell("input", photo, "photo"), make_cell("truth", truth, "mask", bright=is_newts)]
        for owner, image in found.items():
            comparable = image is not None and truth is not None and image.ndim == truth.ndim
            what, measure = ("accuracy", share_right) if panels else ("IoU", overlap)
            note = f"{what} {measure(image, truth):.2f}".replace("nan", UNKNOWN) if comparable else ""
            cells.append(make_cell(owner, image, "mask", cells[0]["ratio"], note, bright=is_newts))
        rows.append((name, cells))
    return rows, len(names)


# ---- drawing and writing ----


def to_data_uri(content, kind):
    """Bytes as a data URI of the media type `kind`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def themed(dark):
    """Matplotlib settings for a light ground (0) or a dark one (1), itself left transparent."""
    inked = ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
    ruled = ("axes.edgecolor", "grid.color", "xtick.color", "ytick.color")
    off = ("axes.spines.top", "axes.spines.right", "legend.frameon")
    bare = ("figure.facecolor", "axes.facecolor")
    settings = {"axes.grid": True, "grid.linewidth": 0.6, "axes.titlelocation": "left", "legend.fontsize": 9}
    for names, value in ((inked, INK[dark]), (ruled, RULE[dark]), (off, False), (bare, "none")):
        settings |= dict.fromkeys(names, value)
    return matplotlib.rc_context(settings)


def draw_curves(axes, curves, dark, title="loss"):
    """Draw the curves {framework: {iteration: number}} for a light ground (0) or a dark one (1)."""
    for framework, curve in curves.items():
        width, dashes, *colours = LINES[framework]
        style = {"linewidth": width, "linestyle": dashes, "color": colours[dark]}
        if len(curve) < 50:  # of a single point there is no line to see
            style |= {"marker": "o", "markersize": width + 1}
        axes.plot(curve.keys(), curve.values(), label=FRAMEWORKS[framework], **style)
    axes.set(title=title, xlabel="iteration")
    axes.legend(handlelength=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def draw_differences(axes, curves, dark):
    """Draw what find_differences gives by iteration, and mark where it first is more than CLOSE."""
    differences = find_differences(curves)
    # No difference at all has no place on a log scale: the line has a gap there.
    values = [relative or math.nan for relative, *_ in differences.values()]
    axes.plot(differences.keys(), values, color=MARK[dark], linewidth=1, marker=".", markersize=3)
    exponents = np.log10([CLOSE / 10, CLOSE, *(value for value in values if value > 0)])
    bottom, top = 10 ** np.floor(exponents.min()), 10 ** np.ceil(exponents.max() + 0.01)
    axes.set(title="largest difference of any two losses", xlabel="iteration", yscale="log", ylim=(bottom, top))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.9f}".rstrip("0").rstrip(".") + " %"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    mark = {"color": INK[dark], "linewidth": 1.1}
    axes.axhline(CLOSE, linestyle="--", **mark)
    crossing = find_crossing(differences)
    if crossing is not None:
        axes.axvline(crossing, linestyle=":", **mark)
        early = crossing < (min(differences) + max(differences)) / 2
        # Where the curve is not: below the line after the crossing, above it before.
        place = {"xytext": (5, 5) if early else (-5, -5), "ha": "left" if early else "right"}
        text = f"over {100 * CLOSE:g} % at iteration {crossing}"
        place |= {"va": "bottom" if early else "top", "textcoords": "offset points", "fontsize": 9}
        axes.annotate(text, (crossing, bottom if early else top), **place)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))


def list_charts(curves, validations=None):
    """The charts to draw of the curves {framework: {iteration: loss}}: [(what it shows, function that draws it)].

    validations are curves of the mIoU, {framework: {iteration: mIoU}}. A function takes axes and whether they are dark.
    """
    charts = []
    for title, some in (("loss", curves), ("mIoU on validation images", validations or {})):
        if some:
            names = ", ".join(FRAMEWORKS[name] for name in some)
            draw = functools.partial(draw_curves, curves=some, title=title)
            charts.append((f"Chart of the {title} by iteration: {names}", draw))
    if any(relative for relative, *_ in find_differences(curves).values()):
        about = "Chart of the largest relative difference of any two losses by iteration, on a log scale"
        charts.append((about, functools.partial(draw_differences, curves=curves)))
    return charts


def render_charts(charts):
    """What list_charts gives, drawn for the page: [(alternative text, light SVG, dark SVG)], the SVG as data URIs."""
    rendered = []
    for about, draw in charts:
        rendered.append([about])
        for dark in (0, 1):
            with themed(dark):
                figure = Figure(figsize=(5.2, 3.7), layout="constrained")
                draw(figure.add_subplot(), dark=dark)
                buffer = io.BytesIO()
                figure.savefig(buffer, format="svg")
            rendered[-1].append(to_data_uri(buffer.getvalue(), "image/svg+xml"))
    return rendered


def draw_comparison(title, sentences, charts, grid):
    """comparison.png as bytes: the charts above a few rows of the grid; None where there is neither."""
    ranked = sorted(grid, key=lambda row: [*FAVOURITES, name := row[0].rpartition("/")[2]].index(name))
    rows = [cells for _, cells in ranked[:4]]
    if not charts and not rows:
        return None
    width, margin, gap = 9, 0.3, 0.08  # inches, as all lengths here
    cell_width = (width - 2 * margin + gap) / max((len(cells) for cells in rows), default=1) - gap
    heights = [min(1.7, cell_width / min(cell["ratio"] for cell in cells)) for cells in rows]
    below_charts = 3.7 if charts else 0.7
    height = below_charts + 0.2 + sum(heights) + gap * len(heights) + margin
    with themed(dark=0), matplotlib.rc_context({"axes.titlesize": 12 if len(charts) < 3 else 8.5}):
        # An opaque ground, so that it reads on a white page and on a dark one.
        figure = Figure(figsize=(width, height), dpi=150, facecolor="#f8f9fa")

        def place(left, top, wide, high):
            return figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))

        figure.text(margin / width, 1 - 0.38 / height, title, fontsize=12, fontweight="bold")
        figure.text(margin / width, 1 - 0.6 / height, " ".join(sentences[:1]), fontsize=9)
        for number, (_, draw) in enumerate(charts):
            share = (width - 2 * margin) / len(charts)
            labels = 0.85 if draw.func is draw_differences else 0.5  # inches left to those of the y axis
            draw(place(margin + labels + share * number, 1.05, share - labels - 0.1, 2.1), dark=0)
        top = below_charts + 0.2
        for row, high in zip(rows, heights, strict=True):
            for number, cell in enumerate(row):
                axes = place(margin + number * (cell_width + gap), top, cell_width, high)
                axes.axis("off")
                if row is rows[0]:
                    axes.set_title(cell["label"], fontsize=9, loc="center")
                if cell["image"] is not None:
                    way = "nearest" if cell["kind"] == "mask" else "auto"
                    axes.imshow(cell["image"], extent=(0, cell["ratio"], 0, 1), interpolation=way)
            top += high + gap
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def write_whole(path, content):
    """Write bytes to a file beside and rename it, so that whoever opens the file never sees half of it."""
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def write_comparison(options, results, facts, command):
    """Print the table to the terminal, and write comparison.png and index.html to the folder options.out."""
    good = [result for result in results if not result.error]
    curves = {result.framework: result.losses for result in good if result.losses}
    charts = list_charts(curves, {result.framework: result.validations for result in good if result.validations})
    rows = build_rows(results)
    sentences = [*describe_curves(curves, options.pretrains), *describe_results(options.exercise, good, options)]

    table = Table("", box=box.SIMPLE_HEAD, title=options.exercise.name, title_justify="left")
    for result in results:
        table.add_column(Text(result.title, style="dim strike" if result.error else ""), justify="right")
    for label, cells in rows:
        table.add_row(Text(label), *(Text(text, style="bold green" if marked else "") for text, marked in cells))
    if rows:
        Console().print(table)
    for line in [*(f"{result.title} failed: {result.error}" for result in results if result.error), *sentences]:
        print(line)

    grid, pictures = make_grid(good, options.data if options.data and options.data.is_dir() else None)
    title = f"{options.exercise.name}: {', '.join(result.title for result in good)}"
    comparison = draw_comparison(title, sentences, charts, grid)
    if comparison:
        write_whole(options.out / "comparison.png", comparison)
    else:
        (options.out / "comparison.png").unlink(missing_ok=True)
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    page = templates.get_template("compare.html").render(
        exercise=options.exercise.name,
        results=results,
        rows=rows,
        sentences=sentences,
        charts=render_charts(charts),
        close=f"{100 * CLOSE:g}",
        grid=grid,
        pictures=pictures,
        facts=facts,
        command=command,
    )
    # A file name that is not UTF-8 has surrogates in it, which no encoding takes.
    write_whole(options.out / "index.html", page.encode("utf-8", errors="backslashreplace"))


# ---- options ----


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ')}\n")


def at_least(least):
    """A type for argparse: whole numbers from `least` on."""

    def parse(text):
        if not (text.isascii() and text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return parse


def default_number(script, option):
    """Return the default of an option of an answer, as its NUMBERS say; None where they do not."""
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "NUMBERS":
            for name, value in zip(node.value.keys, node.value.values, strict=True):
                if ast.literal_eval(name) == option:
                    return ast.literal_eval(value.elts[0])
    return None


def reads_folder(script):
    """Whether an answer reads images from a data folder: its --data has a default. Others make their own images."""
    calls = (node for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    options = (call for call in calls if call.args and getattr(call.args[0], "value", "") == "--data")
    return any(keyword.arg == "default" for call in options for keyword in call.keywords)


def parse_options(arguments):
    """Read the options, and add `scripts`, {framework: path or None}; a wrong one ends in one line and status 2.

    exercise is then an entry of exercises.toml.
    """
    parser = Parser(
        prog=Path(__file__).name,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--exercise", default="unetlike", help="default: unetlike")
    own = f"default: the answers' own, but at most {MOST_ITERATIONS}"
    parser.add_argument("--iterations", type=at_least(1), metavar="N", help=own)
    parser.add_argument("--seed", type=at_least(0), metavar="N", help="default: the answers' own")
    parser.add_argument("--frameworks", default=" ".join(FRAMEWORKS), metavar="'A B'", help="default: all four")
    parser.add_argument("--data", type=Path, metavar="PATH", help="default: the answers' own, such as Dataset/")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="default: the answers' own")
    parser.add_argument("--answers", type=Path, metavar="DIR", help="default: those of the repository")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "outputs/compare", metavar="DIR", help="default: outputs/compare/"
    )
    options = parser.parse_args(arguments)
    try:
        options.exercise = find_exercise(options.exercise, ROOT / "exercises.toml")
    except UnknownExercise as error:
        parser.error(f"--exercise {error}")
    except ValueError as error:  # exercises.toml is malformed
        parser.error(str(error))
    asked = options.frameworks.replace(",", " ").split()
    unknown = set(asked) - set(FRAMEWORKS)
    if unknown or not asked:
        parser.error(f"--frameworks: there is no {min(unknown, default='')!r}; there is {', '.join(FRAMEWORKS)}")
    options.scripts = {}
    for name in FRAMEWORKS:
        if name in asked:
            path = answer_path(options.exercise, name, ROOT)
            path = options.answers / path.name if options.answers else path
            options.scripts[name] = path if path.exists() else None
    if not any(options.scripts.values()):
        where = shorten(str(options.answers or path.parent))
        parser.error(f"--answers: there is no {path.name}, nor one of another framework, in {where}")
    if any(reads_folder(path) for path in options.scripts.values() if path):
        own = ROOT / find_subject(options.exercise.subject, ROOT / "exercises.toml").data
        if options.data and not options.data.is_dir():  # what is not at its own place an answer may make
            parser.error(f"--data: no such folder: {options.data}")
        if options.exercise.reads is None:  # else what an answer reads by default is its framework's own
            options.data = options.data or own
    elif options.data and not options.data.is_file():
        parser.error(f"--data: no such file: {options.data}")
    options.data = options.data and options.data.resolve()
    scripts = [path for path in options.scripts.values() if path]
    # An answer that trains a network twice has a number of its own for the first: who asks for less wants less of both.
    options.pretrains = any(default_number(path, "pretraining") for path in scripts)
    options.pretraining = options.iterations if options.pretrains else None
    if options.iterations is None:
        own = [default_number(path, "iterations") for path in scripts]
        options.iterations = min([MOST_ITERATIONS, *filter(None, own)]) if any(own) else None
    options.out = options.out.resolve() / options.exercise.name
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: cannot make {options.out}: {error.strerror}")
    return options


def state_facts(options, results, arguments):
    """What was run and on what, [(name, text)], and the command line that repeats it."""

    def stated(key):
        values = [result.metrics.get("options", {}).get(key) for result in results]
        values = [value for value in values if value is not None] or [getattr(options, key)]
        return ", ".join(dict.fromkeys("the default" if value is None else str(value) for value in values))

    machine = f"{os.cpu_count()} cores"
    if hasattr(os, "sysconf"):  # not on Windows
        machine += f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    facts = [("exercise", options.exercise.stem), *((key, stated(key)) for key in ("iterations", "seed", "device"))]
    data = shorten(str(options.data)) if options.data else "the answers' own"
    facts += [("data", data), ("machine", machine)]
    facts += [("date", datetime.datetime.now().strftime("%Y-%m-%d %H:%M"))]
    return facts, shorten(quote(["python", "tools/compare.py", *arguments]))


def main(arguments):
    """Run the comparison; returns the exit status."""
    if hasattr(sys.stdout, "reconfigure"):  # a name that is not UTF-8, a terminal that has not all letters
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parse_options(arguments)
    passed_on = []
    for name in ("data", "iterations", "pretraining", "seed", "device"):
        if getattr(options, name) is not None:
            passed_on += [f"--{name}", str(getattr(options, name))]
    page = options.out / "index.html"
    try:
        results = []
        for number, (framework, script) in enumerate(options.scripts.items(), start=1):
            turn = f"[{number}/{len(options.scripts)}] {framework}"
            print(f"{turn}: running {shorten(str(script))}" if script else turn, flush=True)
            start = time.perf_counter()
            result = compare_framework(options.exercise, framework, script, options.out / framework, passed_on)
            end = f"failed: {result.error}" if result.error else f"done in {time.perf_counter() - start:.0f} s"
            print(f"{turn}: {end}", flush=True)
            results.append(result)
        print("drawing the page", flush=True)
        write_comparison(options, results, *state_facts(options, results, arguments))
    except KeyboardInterrupt:
        left = f"{shorten(str(page))} is still that of the last comparison" if page.exists() else "no page was made"
        bar_ends = "\n" if sys.stderr.isatty() else ""
        print(f"{bar_ends}compare.py: interrupted; {left}", file=sys.stderr)
        return 130
    except OSError as error:  # a folder that may not be written, a full disk
        print(f"compare.py: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"page: {shorten(str(page))}")
    if all(result.error for result in results):
        print(f"compare.py: no answer to {options.exercise.name} ended well", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended like Ctrl-C: the answer that runs must end too
    sys.exit(main(sys.argv[1:]))
