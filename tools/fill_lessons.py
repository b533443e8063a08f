"""Fill the marked regions of the Markdown files with code from the answers and numbers from their runs.

A region begins with one of these comments, on a line of its own, and ends with the next <!-- end -->. What stands
between is replaced. A name without a dot is a function, a class or a constant; Class.method is a method.

    <!-- code bin_loss_pytorch build_network compute_loss -->         these pieces of an answer, in this order
    <!-- new bin_loss_pytorch -->                                     all that this answer teaches
    <!-- diff semaseg_loss_pytorch nearest_pytorch build_network -->  what changed in these pieces, old answer first
    <!-- results unetlike -->                                         what the answers to an exercise reached
    <!-- results -->                                                  what those to every exercise reached
    <!-- measured losses -->                                          what a benchmark wrote to assets/losses.json

    python tools/fill_lessons.py           write them: in README.md and the like at the root, in Dataset/,
                                           Question_*/ and benchmarks/; Japanese labels in *.ja.md
    python tools/fill_lessons.py --check   write nothing; exit status 1, and a line for each region that is stale

The numbers are those in the assets/ beside the file; for files outside Question_*/, those in Question_semaseg/assets/.
Status 2, and nothing written, where a marker is wrong.
"""

import argparse
import ast
import difflib
import inspect
import json
import re
import statistics
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from copies import read_pieces
from results import REPOSITORY, RESULTS, read_results

FILES = ("[!.]*.md", "Dataset/[!.]*.md", "Question_*/[!.]*.md", "benchmarks/[!.]*.md")
FRAMEWORKS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "keras": "Keras", "chainer": "Chainer"}
MARKER = re.compile(r"(?P<indent>\s*)<!--(?P<words>.*)-->\s*\Z")
FENCE = re.compile(r"\s*(?P<fence>`{3,}(?=[^`]*\Z)|~{3,})")
EXERCISE = re.compile(r"\|\s*\d+\s*\|\W*(?P<name>\w+)")  # a row of the table of exercises: | 1 | `bin_dataset` | ...
ENGLISH = {
    "title": "`{exercise}`, {iterations} iterations",
    "losses": "loss",
    "miou": "mIoU",
    "iou": "IoU, {}",
    "iou_newt": "IoU of newt",
    "mean_digit_iou": "IoU of the digit, mean over pictures",
    "pixel_accuracy": "pixel accuracy",
    "first_loss": "loss, first iteration",
    "last_loss": "loss, mean of the last 5 %",
    "seconds": "seconds of training",
    "milliseconds_per_iteration": "ms per iteration",
    "peak_memory_mb": "peak memory, MB",
    "exercise": "exercise",
    "iterations": "iterations",
    "parameters": "parameters",
    "final_loss": "loss, last iteration",
    "ways": "training",
    "graph_against_cnn": "network",
    "cell": "{miou:.3f}, {seconds:.0f} s",
    "machine": "mIoU on the test pictures and seconds of training, on {cores} cores with {memory_gb} GiB of memory.",
}
JAPANESE = {
    "title": "`{exercise}`、{iterations} 回",
    "losses": "損失",
    "cross entropy": "交差エントロピー",
    "class-weighted cross entropy": "クラスで重みを付けた交差エントロピー",
    "cross entropy + Dice": "交差エントロピー + Dice",
    "miou": "mIoU",
    "iou": "IoU、{}",
    "iou_newt": "イモリの IoU",
    "mean_digit_iou": "数字の IoU（画像ごとの平均）",
    "recall": "再現率",
    "precision": "適合率",
    "pixel_accuracy": "画素の正解率",
    "first_loss": "損失（最初の一回）",
    "last_loss": "損失（最後の 5 % の平均）",
    "seconds": "学習の秒数",
    "milliseconds_per_iteration": "一回あたりのミリ秒",
    "peak_memory_mb": "最大メモリー（MB）",
    "exercise": "問題",
    "iterations": "回数",
    "parameters": "パラメーター",
    "final_loss": "損失（最後の一回）",
    "ways": "学習のしかた",
    "as given": "既定値のまま",
    "keep 0.9": "0.9 を残す",
    "no dropout": "ドロップアウトなし",
    "twice the channels": "チャンネルを倍に",
    "four times the channels": "チャンネルを四倍に",
    "graph_against_cnn": "ネットワーク",
    "CNN as given": "既定値のままの CNN",
    "CNN without dropout": "ドロップアウトなしの CNN",
    "Kipf and Welling, 5 x 32": "Kipf と Welling、5 x 32",
    "Chebyshev of order 3, 5 x 32": "Chebyshev（K = 3）、5 x 32",
    "Kipf and Welling, 8 x 29": "Kipf と Welling、8 x 29",
    "Chebyshev of order 3, 4 x 26": "Chebyshev（K = 3）、4 x 26",
    "cell": "{miou:.3f}、{seconds:.0f} 秒",
    "machine": "テスト画像の mIoU と、学習の秒数です。{cores} コア、メモリー {memory_gb} GiB の計算機で測りました。",
    "background": "背景",
    "newt": "イモリ",
    "digit": "数字",
    "akahara": "アカハラ",
    "madara": "マダラ",
}
ROWS = {"mean_digit_iou": ".3f", "pixel_accuracy": ".3f", "first_loss": ".3f", "last_loss": ".3f", "seconds": ".0f"}
ROWS |= {"milliseconds_per_iteration": ".0f", "peak_memory_mb": ".0f"}
COLUMNS = {"parameters": ",", "milliseconds_per_iteration": ".0f", "peak_memory_mb": ".0f"}  # the others: ".3f"


class Place(NamedTuple):
    """Where a marker finds what it shows: the repository, and the folder with the numbers."""

    repository: Path
    assets: Path


class WrongMarker(Exception):
    """A marker that cannot be filled, or a file that cannot be read; the message says why."""


def find_answer(repository, name):
    """Return the path of an answer by its name, such as bin_loss_pytorch."""
    paths = list(repository.glob(f"Question_*/answers/{name}.py"))
    if len(paths) != 1:
        raise WrongMarker(f"there are {len(paths)} answers {name}.py: name one of Question_*/answers/")
    return paths[0]


def read_text(path):
    """Return the text of a file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WrongMarker(f"{path}: not UTF-8: save it as UTF-8") from error


def find_source(answer, name):
    """Return the text of a function, class, constant or Class.method with its decorators; None if there is none."""
    lines = read_text(answer).splitlines()
    body = ast.parse("\n".join(lines), filename=str(answer)).body
    for part in name.split("."):
        node = next((node for node in body if part in list_names(node)), None)
        if node is None:
            return None
        body = getattr(node, "body", [])
    first = min(part.lineno for part in (node, *getattr(node, "decorator_list", [])))
    return textwrap.dedent("\n".join(lines[first - 1 : node.end_lineno]))


def list_names(node):
    """Return the names that a statement defines."""
    if isinstance(node, ast.Assign):
        return [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
    return [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []


def show_code(place, labels, answer, *names):
    """Return a block with the named pieces of an answer."""
    path = find_answer(place.repository, answer)
    if not names:
        raise WrongMarker(f"name functions or classes of {path.name} too")
    pieces = {name: find_source(path, name) for name in names}
    for name, piece in pieces.items():
        if piece is None:
            raise WrongMarker(f"{path.name} has no {name}: name a function, class or constant that it has")
    return "```python\n" + "\n\n\n".join(pieces.values()) + "\n```"


def show_new(place, labels, answer):
    """Return a block with all pieces that are new in an answer."""
    path = find_answer(place.repository, answer)
    return show_code(place, labels, answer, *(p.name for p in read_pieces(path).values() if p.source is None))


def show_difference(place, labels, old_answer, new_answer, *names):
    """Return a block with the lines that differ between the named pieces of two answers, and those around them."""
    old_path, new_path = (find_answer(place.repository, answer) for answer in (old_answer, new_answer))
    if not names:
        raise WrongMarker(f"name functions or classes of {old_path.name} or {new_path.name} too")
    hunks = []
    for name in names:
        old, new = find_source(old_path, name), find_source(new_path, name)
        if old is None and new is None:
            raise WrongMarker(f"neither {old_path.name} nor {new_path.name} has {name}: name what one of them has")
        if old == new:
            raise WrongMarker(f"{name} is the same in {old_path.name} and {new_path.name}: do not name it")
        hunks += split_hunks((old or "").splitlines(), (new or "").splitlines())
    return "```diff\n" + "\n...\n".join(hunks) + "\n```"


def split_hunks(old, new):
    """Return the parts of two lists of lines that differ, each with two lines around it; the first names the piece."""
    hunks = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(2):
        hunk = []
        if not hunks:
            head = new[: group[0][3]]  # what the hunk leaves out; of that, show the line with the name
            naming = next((i for i, line in enumerate(head) if line.startswith(("def ", "class "))), None)
            if naming is not None:
                hunk += [f" {head[naming]}"] + ["..."] * (naming + 1 < len(head))
        for kind, old_first, old_end, first, end in group:
            if kind == "equal":
                hunk += [f" {line}" for line in new[first:end]]
            else:
                hunk += [f"-{line}" for line in old[old_first:old_end]] + [f"+{line}" for line in new[first:end]]
        hunks.append("\n".join(line.rstrip() for line in hunk))  # an editor that strips blanks must make nothing stale
    return hunks


def show_results(place, labels, exercise=None):
    """Return the table of one exercise, or without a name that of all which predict."""
    path = place.assets / RESULTS.name
    try:
        results = read_results(path)
    except (OSError, ValueError) as error:
        raise WrongMarker(f"{RESULTS.name} cannot be read ({error}): run make lesson-figures") from error
    try:
        if exercise:
            return show_exercise(labels, results["answers"], exercise)
        return show_overview(place, labels, results)
    except KeyError as error:
        raise WrongMarker(f"{RESULTS.name} has no {error}: run make lesson-figures") from error


def show_exercise(labels, answers, exercise):
    """Return a table of what each framework's answer to an exercise reached."""
    columns = [answers.get(f"{exercise}_{framework}", {}) for framework in FRAMEWORKS]
    if not any(columns):
        raise WrongMarker(f"{RESULTS.name} has no {exercise}: name another exercise, or run make lesson-figures")
    iterations, *others = {column["iterations"] for column in columns if column}
    if others:
        raise WrongMarker(f"{exercise} had not the same iterations everywhere: run make lesson-figures")
    classes = list(dict.fromkeys(name for column in columns for name in column.get("iou", {})))
    rows = [(labels["miou"], ".3f", [column.get("miou") for column in columns])]
    for name in classes:
        label = labels["iou"].format(labels.get(name, name))
        rows.append((label, ".3f", [column.get("iou", {}).get(name) for column in columns]))
    rows += [(labels[key], style, [column.get(key) for column in columns]) for key, style in ROWS.items()]
    title = labels["title"].format(exercise=exercise, iterations=iterations)
    cells = [
        [label, *("–" if number is None else format(number, style) for number in numbers)]
        for label, style, numbers in rows
        if any(number is not None for number in numbers)
    ]
    return show_table([title, *FRAMEWORKS.values()], cells)


def show_overview(place, labels, results):
    """Return a table of what every answer that predicts reached, in the order of the README's table of exercises."""
    answers = {name: answer for name, answer in results["answers"].items() if "miou" in answer}
    lines = read_text(place.repository / "README.md").splitlines()
    order = list(dict.fromkeys(match["name"] for line in lines if (match := EXERCISE.match(line))))
    for exercise in sorted({name.rsplit("_", 1)[0] for name in answers}):
        if exercise not in order:
            raise WrongMarker(f"README.md has no row for {exercise} in its table of exercises: add one")
    rows = []
    for exercise in order:
        columns = [answers.get(f"{exercise}_{framework}") for framework in FRAMEWORKS]
        if any(columns):
            iterations = ", ".join(dict.fromkeys(str(column["iterations"]) for column in columns if column))
            cells = (labels["cell"].format(**column) if column else "–" for column in columns)
            rows.append([f"`{exercise}`", iterations, *cells])
    table = show_table([labels["exercise"], labels["iterations"], *FRAMEWORKS.values()], rows)
    if results["machine"]["memory_gb"] is None:  # some systems do not tell
        raise WrongMarker(f"{RESULTS.name} has no memory_gb of the machine: write it there")
    return f"{table}\n\n{labels['machine'].format(**results['machine'])}"


def show_measured(place, labels, name):
    """Return a table of assets/<name>.json: for each way that was tried the mean of its runs, and their spread."""
    path = place.assets / f"{name}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        # Either all runs together, {way: [run, ...]}, or each way with facts of its own, its runs by seed.
        ways = kept["runs"] if "runs" in kept else {way: list(each["runs"].values()) for way, each in kept.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongMarker(f"{path.name} cannot be read ({error!r}): run benchmarks/{name}.py") from error
    columns = list(next(iter(ways.values()))[0])
    rows = []
    for way, runs in ways.items():
        rows.append([labels.get(way, way)])
        for column in columns:
            values, style = [run[column] for run in runs], COLUMNS.get(column, ".3f")
            spread = f" ± {statistics.stdev(values):{style}}" if len(set(values)) > 1 else ""
            rows[-1].append(f"{statistics.mean(values):{style}}{spread}")
    return show_table([labels.get(name, name), *(labels.get(column, column) for column in columns)], rows)


def show_table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


KINDS = {
    "code": show_code,
    "new": show_new,
    "diff": show_difference,
    "results": show_results,
    "measured": show_measured,
}


def read_marker(line):
    """Return the words of a marker, None where the line is none."""
    match = MARKER.match(line)
    return match and match["words"].split()


def show_region(place, words, labels):
    """Return what belongs between a marker and its end."""
    kind, *names = words or [""]
    if kind not in KINDS:
        raise WrongMarker(f"there is no marker {kind!r}: write one of {', '.join(KINDS)} and end, or no comment here")
    try:
        inspect.signature(KINDS[kind]).bind(place, labels, *names)
    except TypeError as error:  # too many names or too few
        raise WrongMarker(f"{' '.join(words)!r} is not how a marker is written: see tools/fill_lessons.py") from error
    try:
        return KINDS[kind](place, labels, *names)
    except SyntaxError as error:
        raise WrongMarker(f"{Path(error.filename).name}: line {error.lineno} is no Python: mend it") from error


def fill(path, repository):
    """Return the text of a Markdown file with all its regions filled, and (line number, marker) of those that changed.

    Raises WrongMarker, with the line in its message, where a marker cannot be filled.
    """
    labels = JAPANESE if path.name.endswith(".ja.md") else ENGLISH
    subject = path.parent if path.parent.name.startswith("Question_") else repository / "Question_semaseg"
    place = Place(repository, subject / "assets")
    lines = read_text(path).split("\n")
    filled, stale, fence, done = [], [], None, 0
    for number, line in enumerate(lines):
        if number < done:
            continue
        filled.append(line)
        mark = FENCE.match(line)
        if fence:  # a marker in a block of code is an example
            fence = None if mark and mark["fence"].startswith(fence) and line.strip() == mark["fence"] else fence
            continue
        fence = mark and mark["fence"]
        words = read_marker(line)
        if words is None:
            continue
        try:
            region = show_region(place, words, labels)
            done = next((i for i in range(number + 1, len(lines)) if read_marker(lines[i]) is not None), None)
            if done is None or read_marker(lines[done]) != ["end"]:
                raise WrongMarker("the marker has no <!-- end -->: write one below it, on a line of its own")
        except WrongMarker as error:
            raise WrongMarker(f"{path.relative_to(repository)}:{number + 1}: {error}") from error
        wanted = ["", *textwrap.indent(region, MARKER.match(line)["indent"]).split("\n"), "", lines[done]]
        done += 1
        if wanted != lines[number + 1 : done]:
            stale.append((number + 1, " ".join(words)))
        filled += wanted
    return "\n".join(filled), stale


def stop(message):
    """End with one line and status 2."""
    print(f"fill_lessons.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def main(repository=REPOSITORY):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--check", action="store_true", help="write nothing, say what is stale")
    options = parser.parse_args()
    paths = [path for pattern in FILES for path in sorted(repository.glob(pattern))]
    try:
        changed = {path: outcome for path in paths if (outcome := fill(path, repository))[1]}
        if options.check:
            for path, (_, stale) in changed.items():
                for number, words in stale:
                    where = f"{path.relative_to(repository)}:{number}"
                    print(f"{where}: {words!r} is stale: run python tools/fill_lessons.py")
            sys.exit(1 if changed else 0)
        for path, (text, _) in changed.items():
            aside = path.with_name(f".part-{path.name}")
            aside.write_text(text, encoding="utf-8")
            aside.replace(path)
            print(f"filled {path.relative_to(repository)}")
    except (WrongMarker, OSError) as error:
        stop(error)


if __name__ == "__main__":
    main()
