"""Fill the marked regions of the Markdown files with code from the answers and numbers from their runs.

A region begins with one of these comments, on a line of its own, and ends with the next <!-- end -->. What stands
between is replaced. A name without a dot is a function, a class or a constant; Class.method is a method. An answer is
named with or without its number: 02_bin_loss_pytorch or bin_loss_pytorch.

    <!-- code bin_loss_pytorch build_network compute_loss -->         these pieces of an answer, in this order
    <!-- new bin_loss_pytorch -->                                     all pieces that its docstring names as new
    <!-- diff semaseg_loss_pytorch nearest_pytorch build_network -->  what changed in these pieces, old answer first
    <!-- exercises semaseg -->                                        the exercises of a subject, with their answers
    <!-- results unetlike -->                                         what the answers to an exercise reached
    <!-- results voc_test faults -->                                  what they reached part by part, the parts so named
    <!-- results -->                                                  what those to every exercise reached
    <!-- spread -->                                                   what some reached with other seeds
    <!-- measured losses -->                                          what a benchmark wrote to assets/losses.json
    <!-- section lesson/07_nearest.md Your task -->                   what stands under a heading of another page

    python tools/fill_lessons.py           write them: in README.md and the like at the root, in Dataset/, Question_*/,
                                           Question_*/lesson/ and benchmarks/; Japanese labels in *.ja.md
    python tools/fill_lessons.py --check   write nothing; exit status 1, and a line for each region that is stale

The numbers are those in the assets/ of the subject; for files outside Question_*/, those in Question_semaseg/assets/.
A region whose numbers have not been measured yet stays as it is, which a line says; the exit status is then 1 as well.
Status 2, and nothing written, where a marker is wrong.
"""

import argparse
import ast
import difflib
import functools
import inspect
import json
import os
import re
import statistics
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

from copies import read_claims, read_pieces
from exercises import EXERCISES, FRAMEWORKS, answer_path, find_exercise, find_subject, read_exercises
from results import CLASSES, REPOSITORY, RESULTS, read_results

FILES = ("[!.]*.md", "Dataset/[!.]*.md", "Question_*/[!.]*.md", "Question_*/lesson/[!.]*.md", "benchmarks/[!.]*.md")
MARKER = re.compile(r"(?P<indent>\s*)<!--(?P<words>.*)-->\s*\Z")
HEADING = re.compile(r"(?P<level>#+) (?P<text>.*)")
LINK = re.compile(r"(?<=\]\()(?!\w+:)[^()\s]+(?=\))")  # the target of a relative link
FENCE = re.compile(r"\s*(?P<fence>`{3,}(?=[^`]*\Z)|~{3,})")
ENGLISH = {
    "language": "en",  # the key of exercises.toml for what the learner builds
    "title": "`{exercise}`, {iterations} iterations",
    "losses": "loss",
    "miou": "mIoU",
    "iou": "IoU, {}",
    "iou_newt": "IoU of newt",
    "mean_digit_iou": "IoU of the digit, mean over images",
    "boundary_accuracy": "accuracy within 1 pixel of a boundary",
    "pixel_accuracy": "pixel accuracy",
    "first_loss": "loss, first iteration",
    "last_loss": "loss, mean of the last 5 %",
    "seconds": "seconds, whole run",
    "milliseconds_per_iteration": "ms per iteration",
    "peak_memory_mb": "peak memory, MB",
    "exercise": "exercise",
    "builds": "what you build",
    "answers": "answers",
    "iterations": "iterations",
    "parameters": "parameters",
    "final_loss": "loss, last iteration",
    "parts": "loss, pixel accuracy, mIoU",
    "ways": "training",
    "voc_finetune": "fine-tuning",
    "graph_against_cnn": "network",
    "skip": "network",
    "debugging": "what is changed",
    "newt_share": "share of pixels called newt",
    "end_loss": "loss, iterations 96 to 100",
    "seed": "seed {}",
    "mean": "mean",
    "deviation": "standard deviation",
    "spread": "mIoU on the test images, in {}.",
    "and": " and ",
    "cell": "{miou:.3f}, {seconds:.0f} s",
    "core": "1 core",
    "cores": "{} cores",
    "machine": (
        "mIoU on the test images, and seconds of the whole run: start, reading, training and testing, "
        "on {cores} with {memory_gb} GiB of memory."
    ),
}
JAPANESE = {
    "language": "ja",
    "title": "`{exercise}`、{iterations} イテレーション",
    "losses": "損失",
    "cross entropy": "交差エントロピー",
    "class-weighted cross entropy": "クラスで重みを付けた交差エントロピー",
    "cross entropy + Dice": "交差エントロピー + Dice",
    "miou": "mIoU",
    "iou": "IoU、{}",
    "iou_newt": "イモリの IoU",
    "mean_digit_iou": "数字の IoU（画像ごとの平均）",
    "boundary_accuracy": "境界から 1 画素以内の正解率",
    "recall": "再現率",
    "precision": "適合率",
    "pixel_accuracy": "画素の正解率",
    "first_loss": "損失（最初のイテレーション）",
    "last_loss": "損失（最後の 5 % の平均）",
    "seconds": "全体の秒数",
    "milliseconds_per_iteration": "イテレーションあたりのミリ秒",
    "peak_memory_mb": "最大メモリー（MB）",
    "exercise": "問題",
    "builds": "作るもの",
    "answers": "答え",
    "iterations": "イテレーション",
    "parameters": "パラメーター",
    "final_loss": "損失（最後のイテレーション）",
    "parts": "損失、画素の正解率、mIoU",
    "pretrained": "前半のクラスでの事前学習",
    "scratch": "後半のクラスをゼロから",
    "finetuned": "後半のクラスのファインチューニング",
    "none": "誤りなし",
    "the auxiliary loss in full": "補助損失をそのまま足す",
    "in training mode": "学習モードのまま",
    "without normalisation": "正規化なし",
    "void counted": "void も数える",
    "all of them": "すべて",
    "ways": "学習のしかた",
    "as given": "既定値のまま",
    "voc_finetune": "ファインチューニング",
    "running averages move": "移動平均も動かす",
    "batch of 2": "バッチ 2",
    "batch of 2, running averages move": "バッチ 2、移動平均も動かす",
    "heads kept": "ヘッドを引き継ぐ",
    "one learning rate for all": "学習率を一つにする",
    "only the new layers learn": "新しい層だけ学習する",
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
    "skip": "ネットワーク",
    "debugging": "変えたところ",
    "newt_share": "イモリと予測した画素の割合",
    "end_loss": "損失（96 から 100 イテレーション）",
    "learning rate 0.0002": "学習率 0.0002",
    "softmax before the loss": "損失の前のソフトマックス",
    "gradients not set to 0": "勾配を 0 に戻さない",
    "masks of other images": "ほかの画像のマスク",
    "reshape for permute in the loss": "損失で permute の代わりに reshape",
    "1 pooling, without skip": "プーリング 1 回、スキップなし",
    "1 pooling, with skip": "プーリング 1 回、スキップあり",
    "2 poolings, without skip": "プーリング 2 回、スキップなし",
    "2 poolings, with skip": "プーリング 2 回、スキップあり",
    "3 poolings, without skip": "プーリング 3 回、スキップなし",
    "3 poolings, with skip": "プーリング 3 回、スキップあり",
    "seed": "シード {}",
    "mean": "平均",
    "deviation": "標準偏差",
    "spread": "テスト画像の mIoU です（{}）。",
    "and": "、",
    "cell": "{miou:.3f}、{seconds:.0f} 秒",
    "core": "1 コア",
    "cores": "{} コア",
    "machine": (
        "テスト画像の mIoU と、全体（起動、読み込み、学習、テスト）の秒数です。"
        "{cores}、メモリー {memory_gb} GiB の計算機で測りました。"
    ),
    "background": "背景",
    "newt": "イモリ",
    "digit": "数字",
    "akahara": "アカハラ",
    "madara": "マダラ",
}
VOC_IN_JAPANESE = (
    "飛行機 自転車 鳥 ボート 瓶 バス 車 猫 椅子 牛 テーブル 犬 馬 バイク 人 鉢植え 羊 ソファー 列車 テレビ"
)
JAPANESE |= dict(zip(CLASSES[1:], VOC_IN_JAPANESE.split(), strict=True))
ROWS = {"mean_digit_iou": ".3f", "pixel_accuracy": ".3f", "first_loss": ".3f", "last_loss": ".3f", "seconds": ".0f"}
ROWS |= {"peak_memory_mb": ".0f"}
COLUMNS = {
    "parameters": ",",
    "milliseconds_per_iteration": ".0f",
    "peak_memory_mb": ".0f",
    "end_loss": ".4g",
}  # others: ".3f"


class Place(NamedTuple):
    """Where a marker finds what it shows: the repository, the folder with the numbers, and the file it stands in."""

    repository: Path
    assets: Path
    page: Path


class WrongMarker(Exception):
    """A marker that cannot be filled, or a file that cannot be read; the message says why."""


class NotMeasured(Exception):
    """A marker whose numbers do not exist yet; the message says how to get them."""


def find_answer(repository, name):
    """Return the path of an answer by its name with or without its number, such as bin_loss_pytorch."""
    exercise, _, framework = name.rpartition("_")
    try:
        path = answer_path(find_exercise(exercise, repository / EXERCISES.name), framework, repository)
    except ValueError as error:
        raise WrongMarker(f"{name}: {error}") from error
    if not path.exists():
        raise WrongMarker(f"there is no {path.name}: add it, or name another answer")
    return path


def read_text(path):
    """Return the text of a file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise WrongMarker(f"{path}: not UTF-8: save it as UTF-8") from error


def find_source(answer, name):
    """Return a function, class, constant or Class.method with decorators and comments above; None if there is none."""
    lines = read_text(answer).splitlines()
    body = parse("\n".join(lines), str(answer))
    for part in name.split("."):
        node = next((node for node in body if part in list_names(node)), None)
        if node is None:
            return None
        body = getattr(node, "body", [])
    first = min(part.lineno for part in (node, *getattr(node, "decorator_list", []))) - 1
    while first and lines[first - 1].startswith("#"):  # comments above it belong to it
        first -= 1
    return textwrap.dedent("\n".join(lines[first : node.end_lineno]))


@functools.cache
def parse(text, name):
    """Return the statements of an answer, of which a page shows many a piece."""
    return ast.parse(text, filename=name).body


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
    block = ""
    for before, name in zip([None, *names], names, strict=False):  # constants stand close together
        between = "\n" if before and before.isupper() and name.isupper() else "\n\n\n"
        block += (between if before else "") + pieces[name]
    return f"```python\n{block}\n```"


def show_new(place, labels, answer):
    """Return a block with all pieces that are new in an answer, by its docstring."""
    path = find_answer(place.repository, answer)
    try:
        claims, pieces = read_claims(path), read_pieces(path)
    except ValueError as error:
        raise WrongMarker(f"{path.name}:{error}") from error
    if claims is None:
        raise WrongMarker(f"the docstring of {path.name} does not say what is new: see tools/copies.py")
    new = [name for name, piece in pieces.items() if piece.source is None and not name.startswith("__")]
    if not new:
        raise WrongMarker(f"nothing in {path.name} is new by its docstring: leave the marker out")
    return show_code(place, labels, answer, *new)


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
            naming = next((i for i, line in enumerate(head) if re.match(r"(def|class) |[A-Z_]+ = ", line)), None)
            if naming is not None:
                hunk += [f" {head[naming]}"] + ["..."] * (naming + 1 < len(head))
        for kind, old_first, old_end, first, end in group:
            if kind == "equal":
                hunk += [f" {line}" for line in new[first:end]]
            else:
                hunk += [f"-{line}" for line in old[old_first:old_end]] + [f"+{line}" for line in new[first:end]]
        hunks.append("\n".join(line.rstrip() for line in hunk))  # an editor that strips blanks must make nothing stale
    return hunks


def show_exercises(place, labels, subject):
    """Return a table of the exercises of a subject, with links to their pages and answers."""
    try:
        find_subject(subject, place.repository / EXERCISES.name)
    except ValueError as error:
        raise WrongMarker(str(error)) from error
    rows = []
    for exercise in read_exercises(place.repository / EXERCISES.name):
        if exercise.subject == subject:
            paths = {name: answer_path(exercise, name, place.repository) for name in FRAMEWORKS}
            links = {name: Path(os.path.relpath(path, place.page.parent)).as_posix() for name, path in paths.items()}
            answers = " · ".join(f"[{FRAMEWORKS[name]}]({link})" for name, link in links.items())
            builds = getattr(exercise, labels["language"])
            ending = ".ja.md" if place.page.name.endswith(".ja.md") else ".md"
            lesson = paths["pytorch"].parents[1] / "lesson" / f"{exercise.stem}{ending}"
            name = f"`{exercise.name}`"
            if lesson.is_file():
                name = f"[{name}]({Path(os.path.relpath(lesson, place.page.parent)).as_posix()})"
            rows.append([str(exercise.number), name, builds, answers])
    return show_table(["", labels["exercise"], labels["builds"], labels["answers"]], rows)


def read_measured(path):
    """Return what results.json holds; NotMeasured where it is not there, WrongMarker where it cannot be read."""
    try:
        return read_results(path)
    except FileNotFoundError as error:
        raise NotMeasured(f"there is no {path.name} yet: run make lesson-figures") from error
    except (OSError, ValueError) as error:
        raise WrongMarker(f"{path.name} cannot be read ({error}): run make lesson-figures") from error


def show_results(place, labels, exercise=None, parts=None):
    """Return the table of one exercise, or of its parts of that name, or without a name that of all which predict."""
    results = read_measured(place.assets / RESULTS.name)
    try:
        if exercise:
            name = find_exercise(exercise, place.repository / EXERCISES.name).name
            if parts:
                return show_parts(labels, results["answers"], name, parts)
            return show_exercise(labels, results["answers"], name)
        return show_overview(place, labels, results)
    except KeyError as error:
        raise WrongMarker(f"{RESULTS.name} has no {error}: run make lesson-figures") from error
    except ValueError as error:
        raise WrongMarker(str(error)) from error


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


def show_parts(labels, answers, exercise, parts):
    """Return a table of what each framework's answer reached in each part of its run: loss, pixel accuracy and mIoU."""
    columns = [answers.get(f"{exercise}_{framework}", {}).get(parts, {}) for framework in FRAMEWORKS]
    if not any(columns):
        raise WrongMarker(f"{RESULTS.name} has no {parts} of {exercise}: name others, or run make lesson-figures")
    rows = []
    for part in dict.fromkeys(name for column in columns for name in column):
        rows.append([labels.get(part, part)])
        for column in columns:
            each = column.get(part)
            loss = each and each.get("loss", each.get("final_loss"))
            rows[-1].append(f"{loss:.3f}, {each['pixel_accuracy']:.3f}, {each['miou']:.3f}" if each else "–")
    return show_table([labels["parts"], *FRAMEWORKS.values()], rows)


def show_overview(place, labels, results):
    """Return a table of what every answer that predicts reached, in the order of exercises.toml."""
    answers = {name: answer for name, answer in results["answers"].items() if "miou" in answer}
    rows = []
    for exercise in order(place, {name.rpartition("_")[0] for name in answers}):
        columns = [answers.get(f"{exercise}_{framework}") for framework in FRAMEWORKS]
        iterations = ", ".join(dict.fromkeys(str(column["iterations"]) for column in columns if column))
        cells = (labels["cell"].format(**column) if column else "–" for column in columns)
        rows.append([f"`{exercise}`", iterations, *cells])
    table = show_table([labels["exercise"], labels["iterations"], *FRAMEWORKS.values()], rows)
    cores, memory = results["machine"]["cores"], results["machine"]["memory_gb"]
    if memory is None:  # some systems do not report it
        raise WrongMarker(f"{RESULTS.name} has no memory_gb of the machine: write it there")
    cores = labels["core" if cores == 1 else "cores"].format(cores)
    return f"{table}\n\n{labels['machine'].format(cores=cores, memory_gb=memory)}"


def order(place, names):
    """Return names of exercises in the order of exercises.toml; WrongMarker where it lacks one of them."""
    known = [exercise.name for exercise in read_exercises(place.repository / EXERCISES.name)]
    for name in sorted(names - set(known)):
        raise WrongMarker(f"{RESULTS.name} has {name}, {EXERCISES.name} has not: add an entry, or drop the results")
    return [name for name in known if name in names]


def show_spread(place, labels):
    """Return a table of what exercises reached with several seeds: each mIoU, their mean and standard deviation."""
    spread = read_measured(place.assets / RESULTS.name).get("spread")
    if spread is None:
        raise NotMeasured(f"{RESULTS.name} has no spread over seeds yet: run benchmarks/seeds.py")
    try:
        seeds = sorted({seed for each in spread.values() for seed in each["seeds"]})
        frameworks = labels["and"].join(dict.fromkeys(FRAMEWORKS[each["framework"]] for each in spread.values()))
        rows = []
        for exercise in order(place, set(spread)):
            each = spread[exercise]
            reached = dict(zip(each["seeds"], each["miou"], strict=True))
            cells = [f"{reached[seed]:.3f}" if seed in reached else "–" for seed in seeds]
            mean, deviation = statistics.mean(reached.values()), statistics.stdev(reached.values())
            rows.append([f"`{exercise}`", str(each["iterations"]), *cells, f"{mean:.3f}", f"{deviation:.3f}"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # ValueError: one seed only, too
        raise WrongMarker(f"the spread in {RESULTS.name} cannot be read ({error!r}): measure it again") from error
    of_seeds = [labels["seed"].format(seed) for seed in seeds]
    header = [labels["exercise"], labels["iterations"], *of_seeds, labels["mean"], labels["deviation"]]
    return f"{show_table(header, rows)}\n\n{labels['spread'].format(frameworks)}"


def show_measured(place, labels, name):
    """Return a table of assets/<name>.json: for each way that was tried the mean of its runs, and their spread."""
    path = place.assets / f"{name}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        # Either all runs together, {way: [run, ...]}, or each way with facts of its own, its runs by seed.
        ways = kept["runs"] if "runs" in kept else {way: list(each["runs"].values()) for way, each in kept.items()}
    except FileNotFoundError as error:
        raise NotMeasured(f"there is no {path.name} yet: run benchmarks/{name}.py") from error
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


def show_section(place, labels, page, *words):
    """Return what stands under a heading of a page, to the next that is not below it, its links as from this place."""
    path, heading = Path(os.path.normpath(place.page.parent / page)), " ".join(words)
    if not path.is_file():
        raise WrongMarker(f"there is no {page}: name a page, from the folder of this one")
    section, level, fence = None, None, None
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        is_text, fence = not fence, follow_fence(fence, line)
        match = HEADING.match(line) if is_text else None
        if match and section is not None and match["level"] <= level:
            break
        if section is not None:
            if is_text and read_marker(line) is not None:
                raise WrongMarker(f"{page}:{number} is a marker in {heading!r}: it cannot stand in two files")
            section.append(LINK.sub(lambda link: move_link(link[0], path, place.page), line) if is_text else line)
        elif match and match["text"] == heading:
            section, level = [], match["level"]
    if section is None:
        raise WrongMarker(f"{page} has no heading {heading!r}: name one that it has")
    return "\n".join(section).strip("\n")


def move_link(target, page, other):
    """Return the target of a relative link in a page as it must be in another."""
    name, mark, heading = target.partition("#")
    path = Path(os.path.normpath(page.parent / name)) if name else page
    return ("" if mark and path == other else Path(os.path.relpath(path, other.parent)).as_posix()) + mark + heading


def show_table(header, rows):
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


KINDS = {
    "code": show_code,
    "new": show_new,
    "diff": show_difference,
    "exercises": show_exercises,
    "results": show_results,
    "spread": show_spread,
    "measured": show_measured,
    "section": show_section,
}


def read_marker(line):
    """Return the words of a marker, None where the line is none."""
    match = MARKER.match(line)
    return match and match["words"].split()


def follow_fence(fence, line):
    """Return the fence of the block of code that goes on below a line, None outside of one; fence is that above it."""
    mark = FENCE.match(line)
    if fence:
        return None if mark and mark["fence"].startswith(fence) and line.strip() == mark["fence"] else fence
    return mark and mark["fence"]


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
        raise WrongMarker(f"{Path(error.filename).name}: line {error.lineno} is no Python: correct it") from error


def fill(path, repository):
    """Return the text of a Markdown file with its regions filled, and two lists of those that are to be reported.

    The first holds (line number, marker) of each region that changed, the second (line number, reason) of each that
    stays as it is because its numbers are not measured yet. Raises WrongMarker, with the line in its message, where a
    marker cannot be filled.
    """
    labels = JAPANESE if path.name.endswith(".ja.md") else ENGLISH
    folder = path.relative_to(repository).parts[0]
    subject = folder if folder.startswith("Question_") else "Question_semaseg"
    place = Place(repository, repository / subject / "assets", path)
    lines = read_text(path).split("\n")
    filled, stale, waiting, fence, done = [], [], [], None, 0
    for number, line in enumerate(lines):
        if number < done:
            continue
        filled.append(line)
        is_text, fence = not fence, follow_fence(fence, line)
        words = read_marker(line) if is_text else None  # a marker in a block of code is an example
        if words is None:
            continue
        try:
            region = None
            try:
                region = show_region(place, words, labels)
            except NotMeasured as reason:
                waiting.append((number + 1, f"{' '.join(words)!r} cannot be filled: {reason}"))
            done = next((i for i in range(number + 1, len(lines)) if read_marker(lines[i]) is not None), None)
            if done is None or read_marker(lines[done]) != ["end"]:
                raise WrongMarker("the marker has no <!-- end -->: write one below it, on a line of its own")
        except WrongMarker as error:
            raise WrongMarker(f"{path.relative_to(repository).as_posix()}:{number + 1}: {error}") from error
        if region is None:
            filled += lines[number + 1 : done + 1]
            done += 1
            continue
        wanted = ["", *textwrap.indent(region, MARKER.match(line)["indent"]).split("\n"), "", lines[done]]
        done += 1
        if wanted != lines[number + 1 : done]:
            stale.append((number + 1, " ".join(words)))
        filled += wanted
    return "\n".join(filled), stale, waiting


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
        outcomes = {path: fill(path, repository) for path in paths}
        for path, (text, stale, waiting) in outcomes.items():
            where = path.relative_to(repository).as_posix()
            lines = [(number, f"{words!r} is stale: run python tools/fill_lessons.py") for number, words in stale]
            for number, message in sorted([*waiting, *(lines if options.check else [])]):
                print(f"{where}:{number}: {message}")
            if stale and not options.check:
                part = path.with_name(f".part-{path.name}")
                part.write_text(text, encoding="utf-8", newline="\n")
                part.replace(path)
                print(f"filled {where}")
        wrong = any(waiting or (stale and options.check) for _, stale, waiting in outcomes.values())
        sys.exit(1 if wrong else 0)
    except (WrongMarker, OSError) as error:
        stop(error)


if __name__ == "__main__":
    main()
