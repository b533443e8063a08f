"""Check an attempt at an exercise against its answer: say what holds and what does not, and why where that is known.

    python tools/check.py Question_semaseg/attempts/07_nearest_pytorch.py
    python tools/check.py --exercise nearest --framework pytorch     the same
    python tools/check.py            a table of all attempts, and which of them are right
    python tools/check.py --slips    plant every slip of slips.toml in the answers, and count how many are named

The file's name tells the exercise and the framework. The checks, in checks.py, take seconds: small inputs, fixed
weights, double precision, no training beyond five steps. An attempt may be organised in its own way, with other
classes, helpers, names of parameters and modules beside it, as long as the functions are there that the answer has,
take the same arguments in the same order and compute the same. Weights must be drawn in the answer's order; the layers
may be held in any, but those of PyTorch and Chainer that hold their weights by other names than the framework's own
must be held in the order in which the data pass them. Where something differs, the slips of slips.toml are planted in
the answer one by one, everywhere or in one place: if one makes it compute what the attempt computes, the attempt has
that slip. If none does, since there are two at once, say, the first number that differs may still tell one of them.
Options are checked for their defaults alone, and main is not run.

Exit status: 0 right, 1 not right, 2 cannot be checked.
"""

import argparse
import inspect
import itertools
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit("check.py: interrupted"))

from copies import read_pieces
from exercises import FRAMEWORKS, REPOSITORY, answer_path, find_exercise, find_subject, name_of, read_exercises
from start import SUBJECTS, attempt_path, find_lesson, list_new

SLIPS = Path(__file__).with_name("slips.toml")
RIGHT, WRONG = 70, 71  # how a check's process ends; an attempt could end it in any other way, with status 0 too
DRAWN = "the next random number"  # of what a check has drawn
PLACES = 8  # of a slip in an answer, at most, at which it is tried alone
LONGEST = 300  # seconds that a check of one attempt may take
NEEDED = ("load_newts", "build_network", "compute_loss", "train", "predict", "test")  # whatever is new
KINDS = {"does": str, "see": list, "shows": list, "exercises": list}


class Slip(NamedTuple):
    """A slip: what it does, the traps in the lesson that explain it, the checks that it fails first, and its edits.

    edits has for a framework, or for "all", pairs of a regular expression and what takes the place of what matches.
    """

    name: str
    does: str
    see: tuple[str, ...]
    shows: tuple[str, ...]
    exercises: tuple[str, ...]
    edits: dict[str, list[list[str]]]


def stop(message):
    """End with one line and status 2."""
    print(f"check.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def read_slips(path=SLIPS):
    """Return the slips of a TOML file; ValueError, which names the table and the fix, where one is malformed."""
    slips = []
    for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        edits = {key: table.pop(key) for key in ("all", *FRAMEWORKS) if key in table}
        for key, kind in KINDS.items():
            if not isinstance(table.setdefault(key, [] if key == "exercises" else None), kind):
                raise ValueError(f"{path.name}: {name}: {key}: write a {kind.__name__}")
        if table.keys() - KINDS.keys() or not edits:
            raise ValueError(f"{path.name}: {name}: write {', '.join(KINDS)}, and edits for all or a framework")
        lists = (tuple(table[key]) for key, kind in KINDS.items() if kind is list)
        slips.append(Slip(name, table["does"], *lists, edits))
    return slips


def plant(slip, exercise, framework, text, place=None):
    """Return the text of an answer with a slip in it, at every place or at one of these by number; None without one."""
    if slip.exercises and exercise.name not in slip.exercises:
        return None
    planted, count = text, itertools.count()
    for old, new in slip.edits.get("all", []) + slip.edits.get(framework, []):

        def change(match, new=new):
            return match.expand(new) if place in (None, next(count)) else match[0]

        planted = re.sub(old, change, planted, flags=re.MULTILINE)
    return planted if planted != text else None


def find_trap(slip, exercise):
    """Return where the lesson explains a slip, as a message gives it: the file, the heading and the trap's title.

    The exercise's own page comes first, then those before it from the last one back, then all others.
    """
    folder = REPOSITORY / find_subject(exercise.subject).folder
    others = [REPOSITORY / find_subject(name).folder for name in SUBJECTS]
    for place in dict.fromkeys((folder, *others)):
        pages = [path for path in sorted(place.glob("lesson/*.md")) if not path.name.endswith(".ja.md")]
        before = [path for path in pages if path.stem[0].isdigit() and path.stem <= exercise.stem]
        for path in dict.fromkeys((*reversed(before), *pages, place / "README.md")):
            heading, shown = "", path.relative_to(REPOSITORY).as_posix()
            for line in path.read_text(encoding="utf-8").splitlines():
                heading = line.strip("# ") if line.startswith("#") else heading
                if found := [see for see in slip.see if see in line]:
                    return f'{shown}, {heading}: "{found[0].strip("*- ").replace("**", "")}"'
    return find_lesson(exercise)


# ---- in a process of its own, since an attempt may do anything ----


def load_side(path, exercise, framework, is_small=True):
    """Return a Side, with few channels or its own; Failed, which says why, where it cannot be imported."""
    from checks import Failed, Side

    try:
        side = Side(path, exercise, framework)
    except SyntaxError as error:
        raise Failed(f"line {error.lineno or 1}: no Python: {error.msg}") from error
    except Failed:
        raise
    except Exception as error:
        raise Failed(f"{type(error).__name__}: {error}") from error
    side.shrink(is_small)
    return side


def check_functions(attempt, answer, checks, new):
    """Return what is wrong with the functions of an attempt, one line each, and the names of those that are absent."""
    messages, absent = [], []
    if not attempt.has_float:
        messages.append('there is no constant FLOAT: write FLOAT = "float32", and let it be the type of all arrays')
    for name in dict.fromkeys(name for check in checks for name in check.calls):
        wanted = inspect.signature(getattr(answer.module, name))
        if not attempt.has(name):
            absent.append(name)
            if name in NEEDED or name in new:
                messages.append(f"there is no {name}{wanted}")
            continue
        own = inspect.signature(getattr(attempt.module, name))
        try:
            own.bind(*wanted.parameters)
        except TypeError:
            messages.append(f"{name}{own}: must take what the answer's does: {name}{wanted}")
    return messages, absent


class Found(NamedTuple):
    """What came of a check: message is empty where it holds; slips are those that explain what does not.

    part is empty where they explain all of it, "in one place" where they do so there alone, else the first number that
    differs, which is all that they explain.
    """

    name: str
    message: str
    result: object
    slips: tuple[Slip, ...] = ()
    part: str = ""
    because: tuple[str, ...] = ()  # what does not hold, where for that it was not looked at


def run_checks(path, exercise, framework, context, slips):
    """Yield a Found for each check of an attempt, in order, and a name with a reason for each that is left out."""
    from checks import MORE, Left, compare, list_checks, observe

    attempt, answer = load_side(path, exercise, framework), context.answer
    yield Found("it can be imported", "", None)
    if attempt.has("build_network") and answer.has("build_network"):
        context.adapt(attempt)
    checks, new = list_checks(answer), list_new(exercise, framework)
    messages, absent = check_functions(attempt, answer, checks, new)
    for message in messages:
        yield Found("functions", message, None)
    if messages:
        return
    yield Found("functions", "", [name for check in checks for name in check.calls])
    wrong = set()
    for check in checks:
        lacking = [name for name in check.calls if name in absent]
        because = [name for name in check.needs if name in wrong]
        if lacking or because:
            wrong |= {check.name} if because else set()
            yield Found(check.name, None, f"not looked at: no {lacking[0]}" if lacking else "", because=tuple(because))
            continue
        ours = observe(check, attempt, context, as_graph=check.name == "first losses")
        if isinstance(ours, Left):
            yield Found(check.name, None, str(ours))
            continue
        theirs = context.expect(check)  # after it: what the attempt is made of may ask for another list of weights
        if check.name in MORE and isinstance(ours, dict):
            ours = {name: value for name, value in ours.items() if name in theirs}
        message = compare(ours, theirs)
        if not message:
            yield Found(check.name, "", ours)
            continue
        wrong.add(check.name)
        if (
            check.name == "weights drawn"
            and isinstance(ours, dict)
            and compare(*(select(each, DRAWN) for each in (ours, theirs)))
        ):
            message += "; build_network draws more random numbers than the answer's, or fewer"
        message += attempt.notes.get(check.name, "")
        yield Found(check.name, message, ours, *find_slips(check, ours, theirs, exercise, framework, context, slips))


def find_slips(check, ours, theirs, exercise, framework, context, slips):
    """Return the slips with which the answer computes in a check what the attempt does, and "".

    Where there is none, return those with which it does so at one of their places alone, and "in one place"; else, as
    with two slips at once, those that explain the first number that differs, and the name of that.
    """
    from checks import compare

    explained, partial, part = [], [], ""
    if isinstance(ours, dict):
        part = next((name for name in theirs if compare(select(ours, name), select(theirs, name))), "")
        part = "" if isinstance(theirs.get(part), str) else part  # of two words that are the same nothing follows
    slips = [slip for slip in slips if check.name in slip.shows]
    for slip in slips:
        result = observe_slip(slip, check, exercise, framework, context)
        if result is not None and not compare(ours, result):
            explained.append(slip)
        elif part and isinstance(result, dict) and not compare(select(ours, part), select(result, part)):
            partial.append(slip)
    if explained:
        return tuple(explained), ""
    for slip in slips:
        for place in range(PLACES):
            result = observe_slip(slip, check, exercise, framework, context, place)
            if result is None:
                break
            if not compare(ours, result):
                return (slip,), "in one place"
    return tuple(partial), part


def observe_slip(slip, check, exercise, framework, context, place=None):
    """Return what the answer with a slip, everywhere or in one place, computes in a check; None where that has none."""
    from checks import Failed, observe

    path = answer_path(exercise, framework)
    planted = plant(slip, exercise, framework, path.read_text(encoding="utf-8"), place)
    if planted is None:
        return None
    path = context.folder / slip.name / path.name
    path.parent.mkdir(exist_ok=True)
    path.write_text(planted, encoding="utf-8")
    try:
        side = load_side(path, exercise, framework, context.is_small)
    except Failed as error:
        return error
    side.is_attempt = True  # whose weights are listed as an attempt's are
    return observe(check, side, context)


def select(result, name):
    """Return the one entry of that name of the result of a check, or nothing where there is none."""
    return {name: result[name]} if name in result else {}


def describe(found, exercise):
    """Return the numbers of a check that holds, in a few words."""
    if found.name == "functions":
        return ", ".join(dict.fromkeys(found.result))
    if not isinstance(found.result, dict):
        return ""
    if found.name == "parameters":
        return f"{exercise.parameters:,}"
    if found.name not in ("first losses", "test", "evaluation", "measures"):
        return ""
    numbers = [f"{name} {value:.6g}" for name, value in found.result.items() if isinstance(value, float)]
    numbers = ", ".join(numbers[:5])
    return f"{numbers}, of small images of the check's own" if found.name == "first losses" else numbers


def report_parameters(ours, theirs):
    """Return the lines of a table of the parameters around the first that differs, those of attempt and answer."""
    rows = [(name, shape) for name, shape in ours.items()], [(name, shape) for name, shape in theirs.items()]
    first = next(i for i, (a, b) in enumerate(zip(*(part + [None] for part in rows), strict=False)) if a != b)
    lines = [f"{'':9}{'yours':48}the answer's"]
    # The row before it stands there for orientation, unless it is a constant.
    for i in range(first - (" " in rows[0][first - 1][0] if first else 0), min(first + 5, max(map(len, rows)))):
        cells = [f"{part[i][0]} {part[i][1]}" if i < len(part) else "-" for part in rows]
        lines.append(f"{'':9}{cells[0]:48}{cells[1]}")
    return lines


def check_attempt(path, exercise, framework):
    """Check an attempt, and print a line for each check; return whether it is right."""
    import checks

    slips, is_right, left = read_slips(), True, []
    sys.path.insert(0, str(path.parent))  # for modules beside it, as where it is run
    say = sys.stdout.write
    say(f"{path.name}: exercise {exercise.number}, {exercise.name}, in {FRAMEWORKS[framework]}\n")
    with tempfile.TemporaryDirectory() as folder:
        context = checks.Context(load_side(answer_path(exercise, framework), exercise, framework), folder)
        try:
            for found in run_checks(path, exercise, framework, context, slips):
                if found.because:
                    left.append(found.name)
                elif found.message is None:
                    say(f"   -   {found.name}: {found.result}\n")
                elif not found.message:
                    say(f"  yes  {': '.join(filter(None, (found.name, describe(found, exercise))))}\n")
                else:
                    is_right = False
                    say(f"  NO   {found.name}: {found.message}\n")
                    if found.name == "parameters" and isinstance(found.result, dict):
                        say("\n".join(report_parameters(found.result, context.expected["parameters"])) + "\n")
                        say("       Both were given few channels, to be quick.\n" if context.is_small else "")
                    for slip in found.slips:
                        where, same = " in one place" if found.part == "in one place" else "", "what yours does"
                        if found.part and not where:
                            same = f"the same {found.part}, though not all else"
                        say(f"       {slip.does} The answer with this slip{where} computes {same}.\n")
                        say(f"       See {find_trap(slip, exercise)}\n")
                sys.stdout.flush()
        except checks.Failed as error:
            say(f"  NO   it can be imported: {error}\n")
            is_right = False
    say(f"   -   not looked at, since it depends on what does not hold: {', '.join(left)}\n" if left else "")
    say("right\n" if is_right else f"not right yet; the lesson: {find_lesson(exercise)}\n")
    return is_right


def try_slips(framework, everywhere=False, names=()):
    """Plant slips, all or those of these names, in the first answer that teaches their place, or everywhere.

    Prints, for each: slip, exercise, whether it is named, noticed or missed, the check that found it, the slips named.
    """
    import checks

    slips, done = read_slips(), set()
    for exercise in [each for each in read_exercises() if each.subject in SUBJECTS]:
        path, context = answer_path(exercise, framework), None
        new, text, pieces = list_new(exercise, framework), path.read_text(encoding="utf-8"), read_pieces(path)
        with tempfile.TemporaryDirectory() as folder:
            attempt = Path(folder, "attempt", path.name)
            attempt.parent.mkdir()
            for slip in [each for each in slips if each.name in set(names or [each.name]) - done]:
                planted = plant(slip, exercise, framework, text)
                if planted is None:
                    continue
                attempt.write_text(planted, encoding="utf-8")
                changed = {name for name, piece in read_pieces(attempt).items() if piece.text != pieces[name].text}
                if not changed & set(new):
                    continue
                done |= set() if everywhere else {slip.name}
                context = context or checks.Context(load_side(path, exercise, framework), folder)
                founds = run_checks(attempt, exercise, framework, context, slips)
                found = next((each for each in founds if each.message), Found("", "", None))
                named = [each.name for each in found.slips]
                outcome = "named" if named == [slip.name] else "noticed" if found.name else "missed"
                print("\t".join((slip.name, exercise.name, outcome, found.name, ",".join(named))), flush=True)


# ---- in the process that is started ----


def run_child(*arguments, start=subprocess.run, **kwargs):
    """Start this file in a process of its own, on one core, and return what subprocess's function does."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        environment[name] = "1"  # the inputs are so small that more threads are slower
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    return start(command, env=environment, **kwargs)


def find_attempt(path):
    """Return the path of an attempt, its exercise and its framework, by its name; stop where there is no such.

    A name alone is looked for among the attempts, too.
    """
    try:
        name, framework = name_of(path.stem)
        exercise = find_exercise(name)
    except ValueError as error:
        stop(f"{path}: {error}")
    if exercise.subject not in SUBJECTS:
        stop(f"{path}: attempts at the exercises of {find_subject(exercise.subject).folder} cannot be checked yet")
    kept = attempt_path(exercise, framework)
    path = kept if path == Path(kept.name) and not path.exists() else path
    if not path.is_file():
        stop(f"{path.name}: no such file: write one with make start EXERCISE={name} FRAMEWORK={framework}")
    return path, exercise, framework


def find_next(exercise, framework):
    """Return the exercise after one in its subject, None where it is the last or there is an attempt at it already."""
    later = [each for each in read_exercises() if each.subject == exercise.subject and each.number > exercise.number]
    return later[0] if later and not attempt_path(later[0], framework).exists() else None


def show_table():
    """Check all attempts, and print a table of exercises and frameworks; return whether all are right."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    exercises = [each for each in read_exercises() if each.subject in SUBJECTS]
    paths = {(each, name): attempt_path(each, name) for each in exercises for name in FRAMEWORKS}
    paths = {key: path for key, path in paths.items() if path.is_file()}
    others = sorted(set(REPOSITORY.glob("Question_*/attempts/*.py")) - set(paths.values()))
    if others:
        names = ", ".join(path.relative_to(REPOSITORY).as_posix() for path in others)
        print(f"not checked, by their names or since their exercises cannot be checked yet: {names}")
    if not paths:
        print("no attempt to check yet: write one with make start EXERCISE=bin_dataset FRAMEWORK=pytorch")
        return True
    table = Table(title="Attempts")
    for name in ("exercise", *FRAMEWORKS.values()):
        table.add_column(name)
    verdicts, console = {}, Console()
    for key, path in track(paths.items(), "Checking", console=console, transient=True, disable=not console.is_terminal):
        if path.read_bytes() == answer_path(*key).read_bytes():  # copied, as to compare it
            verdicts[key] = "the answer"
            continue
        try:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            done = run_child(path, timeout=LONGEST, encoding="utf-8", errors="replace", **pipes)
            wrong = re.search(r"^  NO   (.*?):", done.stdout, re.MULTILINE)
            verdicts[key] = "right" if done.returncode == RIGHT else wrong[1] if wrong else "cannot be checked"
        except subprocess.TimeoutExpired:
            verdicts[key] = f"longer than {LONGEST} s"
    for exercise in exercises:
        cells = [verdicts.get((exercise, name), "") for name in FRAMEWORKS]
        if any(cells):
            table.add_row(f"{exercise.number} {exercise.name}", *cells)
    console.print(table)
    print("Where one is not right yet, the first check that does not hold is named.")
    return set(verdicts.values()) <= {"right", "the answer"}


def show_slips(frameworks, everywhere):
    """Plant all slips, and print a table: of each kind, how many are named rightly, of how many planted."""
    from rich.console import Console
    from rich.table import Table

    rows, more = [], ["--everywhere"] * everywhere
    for framework in frameworks:
        start = time.perf_counter()
        with run_child(
            "--slips", *more, "--frameworks", framework, start=subprocess.Popen, stdout=subprocess.PIPE
        ) as child:
            for line in map(bytes.decode, child.stdout):
                if line.count("\t") == 4:
                    rows.append((framework, *line.rstrip("\n").split("\t")))
                    print(f"\r{FRAMEWORKS[framework]}: {rows[-1][1]} in {rows[-1][2]}: {rows[-1][3]}\033[K", end="")
        if child.returncode:
            stop(f"--slips {framework}: it ended with status {child.returncode}: see the lines above")
        print(f"\r{FRAMEWORKS[framework]}: {time.perf_counter() - start:.0f} s\033[K", flush=True)
    for framework, slip, exercise, outcome, check, names in rows:
        if outcome != "named":
            print(f"{outcome}: {slip}, {exercise}, {framework}: {check or 'all holds'}: {names or 'no name'}")
    table = Table(title="Named rightly, of those planted")
    for name in ("slip", *(FRAMEWORKS[each] for each in frameworks)):
        table.add_column(name)
    for slip in read_slips():
        outcomes = [[row[3] for row in rows if row[:2] == (each, slip.name)] for each in frameworks]
        table.add_row(slip.name, *(f"{each.count('named')}/{len(each)}" if each else "" for each in outcomes))
    Console().print(table)
    counts = [sum(row[3] == outcome for row in rows) for outcome in ("named", "noticed", "missed")]
    kinds = len({row[1] for row in rows})
    print(f"{len(rows)} planted of {kinds} kinds: {counts[0]} named, {counts[1]} noticed only, {counts[2]} missed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("attempt", nargs="?", type=Path, help="path of an attempt (a table of all)")
    parser.add_argument("--exercise", type=find_exercise, help="instead of a path: whose attempt to check")
    parser.add_argument("--framework", choices=FRAMEWORKS, help="with --exercise (pytorch)")
    parser.add_argument("--slips", action="store_true", help="plant each in the first answer that teaches its place")
    parser.add_argument("--everywhere", action="store_true", help="with --slips: in all answers that teach it")
    parser.add_argument("--frameworks", nargs="+", default=[*FRAMEWORKS], help="whose slips to plant (all)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for name in options.frameworks:
        if name not in FRAMEWORKS:
            stop(f"--frameworks {name}: no such framework: give {', '.join(FRAMEWORKS)}")
    if options.child and options.slips:
        try_slips(options.frameworks[0], options.everywhere)
        return
    if options.slips and options.attempt:
        stop(f"--slips: plants them in the answers: leave out {options.attempt}")
    if options.slips:
        show_slips(options.frameworks, options.everywhere)
        return
    if options.exercise and options.attempt:
        stop(f"--exercise {options.exercise.name}: leave it out, or leave out {options.attempt}")
    if options.framework and not options.exercise:
        stop(f"--framework {options.framework}: give --exercise (make check EXERCISE=bin_dataset), too")
    if options.exercise:
        options.attempt = attempt_path(options.exercise, options.framework or "pytorch")
    if options.attempt is None:
        raise SystemExit(0 if show_table() else 1)
    path, exercise, framework = find_attempt(options.attempt)
    if options.child:
        raise SystemExit(RIGHT if check_attempt(path.resolve(), exercise, framework) else WRONG)
    try:
        done = run_child(path, timeout=LONGEST, stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
    except subprocess.TimeoutExpired:
        print(f"  NO   it takes longer than {LONGEST} s: what comes after the last line does not end")
        raise SystemExit(1) from None
    if done.returncode not in (RIGHT, WRONG):
        why = [line for line in done.stderr.splitlines() if "Error" in line][-1:]
        print(
            f"  NO   it ends the whole process, with status {done.returncode}: what comes after the last line is not "
            f"looked at{': '.join(['', *why])}"
        )
    following = find_next(exercise, framework) if done.returncode == RIGHT else None
    if following:
        print(f"next: make start EXERCISE={following.name} FRAMEWORK={framework}")
    raise SystemExit(0 if done.returncode == RIGHT else 1)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # for messages in letters that the terminal lacks
    main()
