"""tools/copies.py catches each kind of fault in the answers, and --fix corrects it; the answers are single files."""

import ast
import runpy
import sys

import copies
import pytest
from conftest import ROOT
from exercises import FRAMEWORKS, answer_path, find_exercise, name_of, read_exercises

MORE_IMPORTS = {"digits": {"sklearn", "scipy"}, "voc": {"matplotlib"}}  # of a subject, beside the usual
MORE_IMPORTS["street"] = {
    "google_crc32c",
    "markdown_it",
    "matplotlib",
    "onnx",
    "onnx_chainer",
    "onnxruntime",
    "tensorboardX",
    "tf2onnx",
}
ANSWERS = [answer_path(exercise, framework) for exercise in read_exercises() for framework in FRAMEWORKS]
by_name = pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)

EXERCISES = """
[[subject]]
name = "toys"
folder = "Question_toys"
title_en = "Toys"
title_ja = "おもちゃ"
framework_free = ["RADIUS", "area", "main", "__main__"]
"""
ENTRY = """
[[exercise]]
name = "{name}"
subject = "toys"
number = {number}
{base}
trains = false
predicts = false
en = "a toy"
ja = "おもちゃ"
"""
FIRST = '''"""Exercise 1, first, in PyTorch: areas.

Everything is new here.
"""

import math

WIDTH, HEIGHT = 32, 14
# Of a circle,
# in pixels.
RADIUS = 3


def area(radius):
    """Return the area."""
    return math.pi * radius**2


@staticmethod
def to_tensor(number):
    return number


def main():
    print(to_tensor(area(RADIUS)))


if __name__ == "__main__":
    main()
'''
# What the later answers change in the one that they start from.
SECOND = {
    "Exercise 1, first": "Exercise 2, second",
    "Everything is new here.": "New here: RADIUS, double.\nAll else is as in 01_first_pytorch.py.",
    "RADIUS = 3": "RADIUS = 5",
    "def main": "def double(number):\n    return 2 * number\n\n\ndef main",
}
THIRD = {
    "Exercise 2, second": "Exercise 3, third",
    "New here: RADIUS, double.": "New here: area. As in 01_first_pytorch.py: RADIUS.",
    "01_first_pytorch.py.": "02_second_pytorch.py.",
    "RADIUS = 5": "RADIUS = 3",
    "math.pi * radius**2": "4 * radius**2",
}
KERAS = {
    "PyTorch": "Keras",
    "import math": 'import math\nimport os\n\nos.environ["X"] = "1"\nBACKEND = "y"\nimport keras\n\nKNOWN["z"] = 2',
    "    return number\n": "    return [number]\n",
}


def change(text, changes):
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture
def answers(tmp_path):
    """A folder of three toy answers in PyTorch and in Keras, beside its exercises.toml."""
    bases = {"first": "", "second": 'from = "first"', "third": 'from = "second"'}
    entries = [ENTRY.format(name=name, number=i, base=base) for i, (name, base) in enumerate(bases.items(), start=1)]
    (tmp_path / "exercises.toml").write_text("".join([EXERCISES, *entries]), "utf-8")
    folder = tmp_path / "answers"
    folder.mkdir()
    second = change(FIRST, SECOND)
    for name, text in {"01_first": FIRST, "02_second": second, "03_third": change(second, THIRD)}.items():
        (folder / f"{name}_pytorch.py").write_text(text, "utf-8")
        (folder / f"{name}_keras.py").write_text(change(text, KERAS).replace("_pytorch", "_keras"), "utf-8")
    return folder


@pytest.fixture
def run(capsys, monkeypatch):
    """Run tools/copies.py: (exit status, the lines it printed without the folder of the answers)."""

    def run_copies(*arguments):
        monkeypatch.setattr(sys, "argv", ["copies.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "tools" / "copies.py"), run_name="__main__")
        return end.value.code, [line.rpartition("answers/")[2] for line in capsys.readouterr().out.splitlines()]

    return run_copies


@pytest.fixture
def check(run, answers):
    """Run tools/copies.py with more arguments over the toy answers."""
    return lambda *arguments: run(*arguments, "--exercises", answers.parent / "exercises.toml", answers)


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")


def read_all(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_answers_of_the_repository_pass(run):
    assert run() == (0, [])


def test_sound_toys_pass_and_fix_leaves_them(answers, check):
    before = read_all(answers)
    assert check() == (0, [])
    assert check("--fix") == (0, [])
    assert read_all(answers) == before


# Faults in one copy, which --fix undoes: file, what is changed, and the message for it.
UNDONE = [
    ("02_second_pytorch.py", "radius**2", "radius**3", "15: area: not as in 01_first_pytorch.py"),
    ("02_second_pytorch.py", "the area", "an area", "15: area: not as in 01_first_pytorch.py"),
    ("02_second_pytorch.py", "@staticmethod\n", "", "20: to_tensor: not as in 01_first_pytorch.py"),
    ("02_second_pytorch.py", "32, 14", "32, 15", "9: HEIGHT: not as in 01_first_pytorch.py"),
    ("03_third_pytorch.py", "RADIUS = 3", "RADIUS = 4", "10: RADIUS: not as in 01_first_pytorch.py"),
    ("03_third_pytorch.py", "# in pixels.\n", "# in metres.\n", "10: RADIUS: not as in 01_first_pytorch.py"),
    ("03_third_keras.py", "4 * ", "5 * ", "22: area: has no framework in it, but is not as in 03_third_pytorch.py"),
    ("03_third_keras.py", '"y"', '"z"', "10: __setup__: not as in 02_second_keras.py"),
    ("03_third_keras.py", "[number]", "(number,)", "27: to_tensor: not as in 02_second_keras.py"),
    ("02_second_keras.py", "    main()\n", "    main(1)\n", "40: __main__: not as in 01_first_keras.py"),
]


@pytest.mark.parametrize("file, old, new, message", UNDONE)
def test_a_changed_copy_is_caught_and_fixed(answers, check, file, old, new, message):
    before = read_all(answers)
    edit(answers / file, old, new)
    status, lines = check()
    assert status == 1 and any(line.startswith(f"{file}:{message}: run copies.py --fix") for line in lines)
    status, lines = check("--fix")
    assert status == 0 and {line.split(":")[0] for line in lines} == {file}
    assert read_all(answers) == before
    assert check() == (0, [])


# Faults that only an author can correct: file, what is changed, and all messages.
FAULTS = {
    "not named": ("02_second_pytorch.py", "RADIUS, double", "RADIUS", ["25: double: 01_first_pytorch.py has none"]),
    "named new, but as in the base": (
        "02_second_pytorch.py",
        "RADIUS, double",
        "RADIUS, area, double",
        ["15: area: named new, but as in 01_first_pytorch.py: remove the name"],
    ),
    "named new, but as in an earlier one": (
        "03_third_pytorch.py",
        "area. As in 01_first_pytorch.py: RADIUS",
        "area, RADIUS",
        ["10: RADIUS: named new, but as in 01_first_pytorch.py: write 'As in 01_first_pytorch.py: RADIUS'"],
    ),
    "not named, but as in an earlier one": (
        "03_third_pytorch.py",
        " As in 01_first_pytorch.py: RADIUS.",
        "",
        ["10: RADIUS: not as in 02_second_pytorch.py: run copies.py --fix, or name it under 'As in 01_first_py"],
    ),
    "as in the base anyway": (
        "03_third_pytorch.py",
        "py: RADIUS",
        "py: RADIUS, to_tensor",
        ["20: to_tensor: as in 02_second_pytorch.py anyway: remove the name"],
    ),
    "named, but absent": (
        "02_second_pytorch.py",
        "RADIUS, double",
        "RADIUS, double, triple",
        ["3: triple: named in the docstring, but not in the file"],
    ),
    "named twice": (
        "03_third_pytorch.py",
        "New here: area",
        "New here: area, RADIUS",
        ["3: RADIUS: named twice in the docstring", "10: RADIUS: named new, but as in 01_first_pytorch.py"],
    ),
    "another framework": (
        "03_third_pytorch.py",
        "As in 01_first_pytorch.py",
        "As in 01_first_keras.py",
        ["3: 01_first_keras.py: name the answer to an earlier exercise in PyTorch"],
    ),
    "a later exercise": (
        "02_second_pytorch.py",
        "New here: RADIUS, double.",
        "New here: RADIUS. As in 03_third_pytorch.py: double.",
        ["3: 03_third_pytorch.py: name the answer to an earlier exercise in PyTorch"],
    ),
    "another base": (
        "03_third_pytorch.py",
        "as in 02_second_pytorch.py.",
        "as in 01_first_pytorch.py.",
        ["3: the docstring and exercises.toml differ in what it starts from: write 'All else is as in 02_second_pyto"],
    ),
    "no base": (
        "02_second_pytorch.py",
        "New here: RADIUS, double.\nAll else is as in 01_first_pytorch.py.",
        "Everything is new here.",
        ["3: the docstring and exercises.toml differ in what it starts from: write 'All else is as in 01_first_pyto"],
    ),
    "another head": (
        "02_second_pytorch.py",
        "Exercise 2",
        "Exercise 3",
        ["1: the docstring does not begin with 'Exercise 2, second, in PyTorch: '"],
    ),
    "no claims": (
        "03_third_pytorch.py",
        "All else is as in",
        "The rest is from",
        ["1: the docstring does not say what is new: let its last paragraph be like 'New here: A, B. All else is as "],
    ),
    "a name twice": (
        "03_third_pytorch.py",
        "def double",
        "def area(radius):\n    pass\n\n\ndef double",
        ["25: area: stands here and in line 15: put together"],
    ),
    "no Python": ("03_third_pytorch.py", "def double(", "def double", ["25: no Python"]),
    "another order": (
        "03_third_pytorch.py",
        "WIDTH, HEIGHT = 32, 14\n# Of a circle,\n# in pixels.\nRADIUS = 3",
        "# Of a circle,\n# in pixels.\nRADIUS = 3\nWIDTH, HEIGHT = 32, 14",
        ["12: WIDTH: stands after RADIUS, but in 01_first_pytorch.py before it: move one of them"],
    ),
}


@pytest.mark.parametrize("file, old, new, messages", FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_author_is_told_in_one_line(answers, check, file, old, new, messages):
    edit(answers / file, old, new)
    status, lines = check()
    own = [line for line in lines if line.startswith(f"{file}:")]
    assert status == 1 and len(own) == len(messages), lines
    for line, message in zip(own, messages, strict=True):
        assert line.startswith(f"{file}:{message}")


def test_a_piece_that_the_named_file_lacks(answers, check):
    edit(answers / "03_third_pytorch.py", "py: RADIUS", "py: RADIUS, double")
    edit(answers / "03_third_pytorch.py", "2 * number", "3 * number")
    message = "25: double: 01_first_pytorch.py has none: name a file that has it, or name it new"
    assert check("--fix") == (1, [f"03_third_pytorch.py:{message}"])


def test_an_edit_of_the_true_copy_reaches_all_that_have_it_from_there(answers, check):
    edit(
        answers / "01_first_pytorch.py",
        "    return math.pi * radius**2",
        "    pi = math.pi\n\n    return pi * radius**2",
    )
    edit(answers / "01_first_pytorch.py", "RADIUS = 3", "RADIUS = 30  # in all")
    edit(answers / "01_first_keras.py", "[number]", "(number,)")
    for framework in ("pytorch", "keras"):
        edit(answers / f"01_first_{framework}.py", "WIDTH, HEIGHT = 32, 14", "WIDTH, HEIGHT = (\n    32,\n    14,\n)")
    assert check("--fix")[0] == 0
    texts = {name: text.decode() for name, text in read_all(answers).items()}
    for text in texts.values():
        ast.parse(text)
        assert "WIDTH, HEIGHT = (\n    32,\n    14,\n)\n# Of a circle,\n" in text
    teach_area = {name for name, text in texts.items() if "    pi = math.pi\n\n    return pi * radius**2\n\n\n" in text}
    assert teach_area == {
        f"{stem}_{framework}.py" for stem in ("01_first", "02_second") for framework in ("pytorch", "keras")
    }
    # 02_second has a RADIUS of its own; 03_third has it from 01_first.
    assert {name[:2] for name, text in texts.items() if "# in pixels.\nRADIUS = 30  # in all\n" in text} == {"01", "03"}
    assert {name for name, text in texts.items() if "(number,)" in text} == {name for name in texts if "keras" in name}
    edit(answers / "02_second_pytorch.py", "# in pixels.\nRADIUS = 5", "RADIUS = 6")
    assert check()[1][0].startswith(
        "02_second_keras.py:20: RADIUS: has no framework in it, but is not as in 02_second_"
    )
    assert check("--fix") == (0, ["02_second_keras.py: RADIUS is now as in 02_second_pytorch.py"])
    assert "# Of a circle,\nRADIUS = 6\n" in (answers / "02_second_keras.py").read_text()


def test_a_file_that_is_not_rewritten_yet_has_one_message_and_none_for_those_that_start_from_it(answers, check):
    (answers / "02_second_pytorch.py").write_text('"""Something else."""\n\nRADIUS = 7\n\n\ndef other():\n    pass\n')
    status, lines = check()
    assert status == 1 and [line.split(":")[0] for line in lines] == ["02_second_pytorch.py"]
    before = read_all(answers)
    assert check("--fix") == (1, lines)
    assert read_all(answers) == before


def test_pieces_without_a_framework_that_one_file_has_alone(answers, check):
    exercises = answers.parent / "exercises.toml"
    edit(exercises, '"main"', '"main", "to_tensor", "double", "triple"')
    edit(answers / "02_second_keras.py", "def double", "def triple")
    edit(answers / "02_second_keras.py", "RADIUS, double", "RADIUS, triple")
    lines = check()[1]
    assert "02_second_keras.py:1: double: missing: copy it from 02_second_pytorch.py" in lines
    line = "triple: has no framework in it, but 02_second_pytorch.py has none: remove it, or add it there"
    assert f"02_second_keras.py:32: {line}" in lines


@pytest.mark.parametrize(
    "name, message",
    [
        ("second_pytorch.py", "1: second_pytorch: no name of an answer: give one such as 11_unetlike_pytorch"),
        ("05_second_pytorch.py", "1: the number is 2 by exercises.toml: correct the one that is wrong"),
        ("04_fourth_pytorch.py", "1: fourth has no entry in exercises.toml: add one, or rename the file"),
    ],
)
def test_a_file_that_is_no_answer_of_an_exercise(answers, check, name, message):
    (answers / name).write_text(FIRST)
    assert check() == (1, [f"{name}:{message}"])


def test_subjects_are_apart(answers, check, tmp_path, run):
    exercises = answers.parent / "exercises.toml"
    subject = EXERCISES.replace("toys", "others")
    entry = ENTRY.format(name="fourth", number=1, base="").replace("toys", "others")
    exercises.write_text(exercises.read_text("utf-8") + subject + entry, "utf-8")
    radius = "# Of a circle,\n# in pixels.\nRADIUS = 3\n"
    text = FIRST.replace("first", "fourth").replace(radius, "").replace("WIDTH,", f"{radius}WIDTH,")
    more = tmp_path / "more" / "answers"
    more.mkdir(parents=True)
    (more / "01_fourth_pytorch.py").write_text(text, "utf-8")
    assert run("--exercises", exercises, answers, more) == (0, [])
    (more / "01_first_pytorch.py").write_text(FIRST, "utf-8")
    status, lines = run("--exercises", exercises, answers, more)
    assert status == 1 and lines == ["01_first_pytorch.py: rename one"]


def test_bytes_that_are_not_utf_8(answers, check):
    (answers / "03_third_keras.py").write_bytes(b'"""\xff"""\n')
    assert check() == (1, ["03_third_keras.py:1: not UTF-8: save it as UTF-8"])


def test_a_base_that_is_missing_and_a_folder_without_answers(answers, check, tmp_path, run):
    (answers / "02_second_keras.py").unlink()
    assert check() == (
        1,
        ["03_third_keras.py:3: there is no 02_second_keras.py: add it, or correct from in exercises.toml"],
    )
    assert run(tmp_path / "nowhere") == (2, [])
    assert run("--exercises", tmp_path / "nowhere.toml") == (2, [])


def test_read_pieces_tells_from_where_each_is(answers):
    pieces = copies.read_pieces(answers / "03_third_keras.py")
    names = ["__setup__", "__setup_2__", "WIDTH", "HEIGHT", "RADIUS", "area", "to_tensor", "double", "main", "__main__"]
    assert list(pieces) == names
    base = "02_second_keras.py"
    sources = dict.fromkeys(names, base) | {"area": None, "RADIUS": "01_first_keras.py"}
    assert {name: piece.source for name, piece in pieces.items()} == sources
    assert pieces["__setup__"].text == 'os.environ["X"] = "1"\nBACKEND = "y"'
    assert pieces["__setup_2__"].text == 'KNOWN["z"] = 2'
    assert pieces["to_tensor"].text == "@staticmethod\ndef to_tensor(number):\n    return [number]"
    assert pieces["RADIUS"].text == "# Of a circle,\n# in pixels.\nRADIUS = 3"


def test_a_changed_copy_in_the_answers_of_the_repository(tmp_path, run):
    for path in ANSWERS:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = read_all(tmp_path)
    for framework in FRAMEWORKS:
        edit(tmp_path / f"03_bin_test_{framework}.py", "cv2.INTER_NEAREST_EXACT", "cv2.INTER_NEAREST")
    status, lines = run(tmp_path)
    changed = {(line.split(":")[0].rpartition("/")[2], line.split(": ")[1]) for line in lines}
    # 06_semaseg_test has it from there.
    files = [f"{stem}_{framework}.py" for stem in ("03_bin_test", "06_semaseg_test") for framework in FRAMEWORKS]
    assert status == 1 and changed == {(file, "load_newts") for file in files}
    assert run("--fix", tmp_path)[0] == 0
    assert read_all(tmp_path) == before


@by_name
def test_an_answer_is_one_file_of_its_framework_alone(path):
    text = path.read_text("utf-8")
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    name, framework = name_of(path.stem)
    framework = {"pytorch": "torch"}.get(framework, framework)
    assert framework in imported
    others = {"numpy", "cv2", "PIL", "tqdm"} | MORE_IMPORTS.get(find_exercise(name).subject, set())
    others |= {"jax"} if framework == "keras" else set()  # of its backends
    others |= (
        {"chainer": {"chainermn", "mpi4py"}, "keras": {"tensorflow"}}.get(framework, set())
        if "parallel" in name
        else set()
    )
    assert imported <= sys.stdlib_module_names | {framework} | others
    assert max(map(len, text.splitlines())) <= 120


@by_name
def test_every_answer_has_the_same_names(path):
    exercise = find_exercise(name_of(path.stem)[0])
    wanted = {"read_options", "main", "__main__", "stop", "write_whole"}
    wanted |= {"load_newts"} if exercise.subject == "semaseg" else set()
    is_voc = exercise.subject == "voc"  # whose weights have a format of their own
    wanted |= {"build_network", "compute_loss", "train"} if exercise.trains else set()
    wanted |= {"write_pth" if is_voc else "save_weights"} if exercise.trains else set()
    wanted |= {"load_weights", "predict", "measure"} if exercise.predicts else set()
    measures = {"deeplab_finetune": "evaluate", "street_train": "validate"}
    wanted |= {measures.get(exercise.name, "test")} if exercise.predicts else set()
    assert wanted <= copies.read_pieces(path).keys()
