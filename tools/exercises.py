"""Tell what exercises there are, from exercises.toml, where everything that is said once per exercise is said.

[[exercise]]
name = "unet"           # unique among all subjects; the answers are NN_<name>_<framework>.py
subject = "semaseg"     # the name of a [[subject]]
number = 10             # its place in the ladder of the subject, counted from 1
from = "concat"         # the exercise whose answers its own start from; the first of a subject has none
reads = "street_records" # the exercise whose output its answers read by default, not the subject's data; may be absent
trains = true           # whether it trains a network of its own
predicts = true         # whether it tests the network and writes what it predicts
parameters = 31_045_571 # how many numbers training sets, at the defaults; absent where it trains nothing
test_size = 188         # the smallest --size, for quick tests; absent where there is no such option
en = "..."              # what the learner builds, for the tables of the READMEs
ja = "..."
[exercise.figure_options]    # of the run that gives figures and numbers, where they are not the defaults
iterations = 300
[exercise.network_options]   # options that change the network: values to try, as typed, the default first
upsampling = ["nearest", "bilinear"]

[[subject]]
name = "semaseg"
folder = "Question_semaseg"
title_en = "..."
title_ja = "..."
data = "Dataset/voc"    # the folder that its answers read by default; absent where that is Dataset, or none
framework_free = ["COLOURS", "augment"]  # pieces of the answers that are equal in all frameworks: tools/copies.py
"""

import argparse
import difflib
import importlib.util
import inspect
import re
import signal
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

REPOSITORY = Path(__file__).resolve().parent.parent
EXERCISES = REPOSITORY / "exercises.toml"
FRAMEWORKS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow", "keras": "Keras", "chainer": "Chainer"}
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")  # of an exercise, a subject or an option


class UnknownExercise(argparse.ArgumentTypeError, ValueError):
    """There is no exercise of that name; argparse shows the message where find_exercise is the type of an argument."""


@dataclass(frozen=True)
class Subject:
    """A ladder of exercises, in a folder of its own."""

    name: str
    folder: str
    title_en: str
    title_ja: str
    framework_free: tuple[str, ...]
    data: str = "Dataset"


@dataclass(frozen=True)
class Exercise:
    """An exercise; base is what exercises.toml calls from, None where there is none."""

    name: str
    subject: str
    number: int
    trains: bool
    predicts: bool
    en: str
    ja: str
    base: str | None = None
    reads: str | None = None
    parameters: int | None = None
    test_size: int | None = None
    figure_options: dict[str, str] = field(default_factory=dict, hash=False)
    network_options: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @property
    def stem(self) -> str:
        """The name with the number, as in 11_unetlike: how the names of its answers begin."""
        return f"{self.number:02}_{self.name}"


KEYS = {  # of an entry, with the type of the value; "?" where it may be absent
    "exercise": {
        "name": str,
        "subject": str,
        "number": int,
        "from?": str,
        "reads?": str,
        "trains": bool,
        "predicts": bool,
        "parameters?": int,
        "test_size?": int,
        "en": str,
        "ja": str,
        "figure_options?": dict,
        "network_options?": dict,
    },
    "subject": {"name": str, "folder": str, "title_en": str, "title_ja": str, "data?": str, "framework_free": list},
}


def read_exercises(path: Path | str = EXERCISES) -> tuple[Exercise, ...]:
    """Return all exercises, subject by subject in the order of their ladders.

    Raises ValueError, with one line that names the entry and the fix, where the file is malformed, and OSError where it
    cannot be read.
    """
    return _read(Path(path))[1]


def read_subjects(path: Path | str = EXERCISES) -> tuple[Subject, ...]:
    """Return all subjects in their order; the errors are those of read_exercises."""
    return _read(Path(path))[0]


def find_subject(name: str, path: Path | str = EXERCISES) -> Subject:
    """Return a subject by its name; ValueError where there is none."""
    subjects = {subject.name: subject for subject in read_subjects(path)}
    if name not in subjects:
        raise UnknownExercise(f"{name}: no such subject: give one of {', '.join(subjects)}")
    return subjects[name]


def find_exercise(name: str, path: Path | str = EXERCISES) -> Exercise:
    """Return an exercise by its name, with or without its number: unetlike or 11_unetlike.

    Raises UnknownExercise, a ValueError whose message suggests the nearest names, where there is none.
    """
    exercises = {exercise.name: exercise for exercise in read_exercises(path)}
    stems = {exercise.stem: exercise for exercise in exercises.values()}
    found = exercises.get(name) or stems.get(name)
    if found is None:
        near = difflib.get_close_matches(name.lower(), exercises, n=3, cutoff=0.5)
        raise UnknownExercise(f"{name}: no such exercise: {_list('give', near or list(exercises))}")
    return found


def answer_path(exercise: Exercise | str, framework: str, repository: Path | None = None) -> Path:
    """Return the path of the answer to an exercise in a framework, such as "keras"; it need not exist."""
    repository = repository or REPOSITORY
    if isinstance(exercise, str):
        exercise = find_exercise(exercise, repository / EXERCISES.name)
    if framework not in FRAMEWORKS:
        raise ValueError(f"{framework}: no such framework: {_list('give', list(FRAMEWORKS))}")
    folder = find_subject(exercise.subject, repository / EXERCISES.name).folder
    return repository / folder / "answers" / f"{exercise.stem}_{framework}.py"


def list_earlier(exercise: Exercise | str, framework: str, repository: Path | None = None) -> list[Path]:
    """Return the paths of the answers whose output the answer to an exercise needs, in the order in which they run.

    Each but the first reads what the one before it wrote.
    """
    if isinstance(exercise, str):
        exercise = find_exercise(exercise, (repository or REPOSITORY) / EXERCISES.name)
    if exercise.reads is None:
        return []
    return [*list_earlier(exercise.reads, framework, repository), answer_path(exercise.reads, framework, repository)]


def name_of(stem: str) -> tuple[str, str]:
    """Return the exercise and the framework of an answer by its file's stem: unetlike, pytorch of 11_unetlike_pytorch.

    Raises ValueError where that is no name of an answer; whether there is such an exercise is not looked up.
    """
    match = re.fullmatch(rf"\d\d+_(?P<name>{NAME.pattern})_(?P<framework>{'|'.join(FRAMEWORKS)})", stem)
    if not match:
        raise ValueError(f"{stem}: no name of an answer: give one such as 11_unetlike_pytorch")
    return match["name"], match["framework"]


def load_answer(path: Path | str) -> ModuleType:
    """Import an answer as a module; it does nothing until its functions are called.

    It is not kept in sys.modules, so that the answers to two exercises, or a copy of one, can be loaded side by side.
    Two frameworks in one process disturb each other: load answers of one.
    """
    specification = importlib.util.spec_from_file_location(Path(path).stem, path)
    answer = importlib.util.module_from_spec(specification)
    handler = signal.getsignal(signal.SIGINT)  # an answer sets its own, for when it runs alone
    try:
        specification.loader.exec_module(answer)
    finally:
        signal.signal(signal.SIGINT, handler)
    return answer


def build_network(answer: ModuleType, rng, options, classes: int = 7):
    """Return a network of an answer, as a module, with weights drawn from rng.

    classes counts where the answer doesn't know their number by itself: it stands in the records that it reads.
    """
    asks = "classes" in inspect.signature(answer.build_network).parameters
    return answer.build_network(rng, *([classes] if asks else []), options)


def _list(verb: str, names: list[str]) -> str:
    """Return a phrase such as: give unet, unetlike or segnet."""
    return f"{verb} {' or '.join([', '.join(names[:-1])] * (len(names) > 1) + names[-1:])}"


def _read(path: Path) -> tuple[tuple[Subject, ...], tuple[Exercise, ...]]:
    """Return the subjects and exercises of a file; see read_exercises."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: not TOML in UTF-8: {error}") from error
    for kind in entries:
        if kind not in KEYS or not isinstance(entries[kind], list):
            raise ValueError(f"{path.name}: {kind}: write entries [[exercise]] and [[subject]] only")
    for kind in KEYS:
        for position, entry in enumerate(entries.get(kind, []), start=1):
            _check_entry(f"{path.name}: {kind} {entry.get('name', f'number {position} in the file')}", kind, entry)
    subjects = tuple(
        Subject(**{**entry, "framework_free": tuple(entry["framework_free"])}) for entry in entries.get("subject", [])
    )
    exercises = []
    for entry in entries.get("exercise", []):
        entry["base"] = entry.pop("from", None)
        for options in ("figure_options", "network_options"):
            entry[options] = {name: _to_typed(value) for name, value in entry.get(options, {}).items()}
        exercises.append(Exercise(**entry))
    _check_ladders(path.name, subjects, exercises)
    order = [subject.name for subject in subjects]
    exercises.sort(key=lambda exercise: (order.index(exercise.subject), exercise.number))
    return subjects, tuple(exercises)


def _to_typed(value: object) -> str | tuple[str, ...]:
    """Return the value of an option, or a list of such, as it is typed on a command line."""
    return tuple(map(str, value)) if isinstance(value, list) else str(value)


def _check_entry(where: str, kind: str, entry: dict) -> None:
    """Raise ValueError where an entry lacks a key, or has one that is unknown or whose value is of the wrong type."""
    keys = {key.rstrip("?"): (value, key.endswith("?")) for key, value in KEYS[kind].items()}
    for key, value in entry.items():
        if key not in keys:
            raise ValueError(f"{where}: unknown key {key}: {_list('write', list(keys))}")
        if type(value) is not keys[key][0]:
            raise ValueError(f"{where}: {key} = {value!r}: write a value of type {keys[key][0].__name__}")
    for key, (_, may_be_absent) in keys.items():
        if key not in entry and not may_be_absent:
            raise ValueError(f"{where}: has no {key}: add one")
    if not NAME.fullmatch(entry["name"]):
        raise ValueError(f"{where}: write the name in lower case, such as grid_graph")
    if kind == "subject" and not all(isinstance(name, str) for name in entry["framework_free"]):
        raise ValueError(f"{where}: framework_free: write names in quotes")
    for name, values in entry.get("network_options", {}).items():
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            raise ValueError(f'{where}: network_options: {name} = {values!r}: write a list such as ["8", "4"]')
    for name, value in entry.get("figure_options", {}).items():
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise ValueError(f"{where}: figure_options: {name} = {value!r}: write a number or a text")


def _check_ladders(file: str, subjects: tuple[Subject, ...], exercises: list[Exercise]) -> None:
    """Raise ValueError where names are not unique, or the exercises of a subject are no ladder."""
    for kind, entries in (("subject", subjects), ("exercise", exercises)):
        names = [entry.name for entry in entries]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{file}: {kind} {name}: stands {names.count(name)} times: rename or remove one")
    for exercise in exercises:
        if exercise.subject not in [subject.name for subject in subjects]:
            fix = "add one, or correct the name"
            raise ValueError(f"{file}: exercise {exercise.name}: subject {exercise.subject} has no entry: {fix}")
    for exercise in exercises:
        where = f"{file}: exercise {exercise.name}"
        ladder = [other for other in exercises if other.subject == exercise.subject]
        if sorted(other.number for other in ladder) != list(range(1, len(ladder) + 1)):
            numbers = [other.number for other in ladder]
            raise ValueError(f"{file}: subject {exercise.subject}: numbers {numbers}: write 1 to {len(ladder)}")
        earlier = [other.name for other in ladder if other.number < exercise.number]
        if exercise.base is None and earlier:
            raise ValueError(f"{where}: has no from: name the exercise that it starts from")
        if exercise.base is not None and exercise.base not in earlier:
            raise ValueError(f"{where}: from = {exercise.base!r}: name an earlier exercise of {exercise.subject}")
        if exercise.reads is not None and exercise.reads not in earlier:
            raise ValueError(f"{where}: reads = {exercise.reads!r}: name an earlier exercise of {exercise.subject}")
        if exercise.trains != (exercise.parameters is not None):
            fix = "add their number" if exercise.trains else "remove them, or write trains = true"
            raise ValueError(f"{where}: trains = {str(exercise.trains).lower()}, so parameters are wrong: {fix}")
        if exercise.predicts and not exercise.trains:
            raise ValueError(f"{where}: predicts without training: write trains = true, or predicts = false")
