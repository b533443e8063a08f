"""tools/copies.py catches and mends a changed copy; the answers keep the rule of the single file."""

import ast
import runpy
import sys
from pathlib import Path

import copies
import pytest
from conftest import FRAMEWORKS, ROOT, SCRIPTS, is_trained

TAUGHT = '''"""The first."""

import math


def area(radius):
    """Return the area."""
    return math.pi * radius**2


def double(number):
    return 2 * number
'''

COPY = '''"""The second."""

import math


def new():
    return 1


# As in first_pytorch.py
def area(radius):
    """Return the area."""
    return math.pi * radius**2


# New here
def other(number):
    return 3 * number


# As in first_pytorch.py
def double(number):
    return 2 * number
'''


@pytest.fixture
def answers(tmp_path):
    """A folder of one answer that teaches two functions and two that have copies of them."""
    for name, text in {"first_pytorch": TAUGHT, "second_pytorch": COPY, "third_keras": COPY}.items():
        text = text.replace("def new", f"def new_{name}").replace("def other", f"def {name}")
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def run(capsys, monkeypatch, *arguments):
    """Run tools/copies.py and return its exit status and what it printed."""
    monkeypatch.setattr(sys, "argv", ["copies.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools" / "copies.py"), run_name="__main__")
    return end.value.code, capsys.readouterr().out


def edit(path, old, new):
    text = path.read_text("utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), "utf-8")


def read_all(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_answers_of_the_repository_pass(capsys, monkeypatch):
    assert run(capsys, monkeypatch) == (0, "")


@pytest.mark.parametrize(
    "old, new",
    [("radius**2", "radius**3"), ('"""Return the area."""', '"""Return an area."""'), ("**2", "**2 ")],
)
def test_a_changed_copy_is_caught_and_mended(answers, capsys, monkeypatch, old, new):
    before = read_all(answers)
    edit(answers / "second_pytorch.py", old, new)
    status, printed = run(capsys, monkeypatch, answers)
    assert status == 1 and printed == "second_pytorch.py:11: area is not as in first_pytorch.py\n"
    assert run(capsys, monkeypatch, "--fix", answers) == (0, "second_pytorch.py: area is now as in first_pytorch.py\n")
    assert read_all(answers) == before
    assert run(capsys, monkeypatch, answers) == (0, "")


def test_a_changed_copy_in_the_answers_of_the_repository(tmp_path, capsys, monkeypatch):
    for script in SCRIPTS:
        (tmp_path / script.name).write_bytes(script.read_bytes())
    before = read_all(tmp_path)
    assert run(capsys, monkeypatch, tmp_path) == (0, "")
    for framework in FRAMEWORKS:
        edit(tmp_path / f"bin_test_{framework}.py", "cv2.INTER_NEAREST_EXACT", "cv2.INTER_NEAREST")
    status, printed = run(capsys, monkeypatch, tmp_path)
    lines = printed.splitlines()
    assert status == 1 and len(lines) == 4 and all("resize is not as in bin_dataset_pytorch.py" in n for n in lines)
    assert run(capsys, monkeypatch, "--fix", tmp_path)[0] == 0
    assert read_all(tmp_path) == before


def test_an_edit_of_the_taught_one_reaches_all_its_copies(answers, capsys, monkeypatch):
    halved = "    half = math.pi / 2\n\n    return 2 * half * radius**2"
    edit(answers / "first_pytorch.py", "    return math.pi * radius**2", halved)
    edit(answers / "first_pytorch.py", "return 2 * number", "return number + number")
    assert run(capsys, monkeypatch, "--fix", answers)[0] == 0
    for name in ("second_pytorch.py", "third_keras.py"):
        text = (answers / name).read_text()
        assert "    half = math.pi / 2\n\n    return 2 * half * radius**2\n\n\n# New here\n" in text
        assert text.endswith("# As in first_pytorch.py\ndef double(number):\n    return number + number\n")
        ast.parse(text)


def test_a_piece_that_the_named_file_lacks(answers, capsys, monkeypatch):
    edit(answers / "second_pytorch.py", "def double", "def triple")
    status, printed = run(capsys, monkeypatch, "--fix", answers)
    assert status == 1
    assert printed == "second_pytorch.py:22: triple is said to be as in first_pytorch.py, which has none\n"
    edit(answers / "third_keras.py", "# As in first_pytorch.py\ndef area", "# As in no_such.py\ndef area")
    assert "area is said to be as in no_such.py, which has none" in run(capsys, monkeypatch, answers)[1]


def test_a_copy_of_a_copy_is_told_the_file_that_teaches(answers, capsys, monkeypatch):
    edit(answers / "third_keras.py", "# As in first_pytorch.py\ndef area", "# As in second_pytorch.py\ndef area")
    status, printed = run(capsys, monkeypatch, "--fix", answers)
    line = "third_keras.py:11: area is said to be as in second_pytorch.py, which has it from first_pytorch.py"
    assert (status, printed) == (1, f"{line}: name that\n")


def test_two_equal_pieces_without_the_comment(answers, capsys, monkeypatch):
    edit(answers / "second_pytorch.py", "# As in first_pytorch.py\ndef double", "# New here\ndef double")
    status, printed = run(capsys, monkeypatch, answers)
    places = "first_pytorch.py:11: double and second_pytorch.py:22: double"
    assert (status, printed) == (1, f"{places} are the same: put '# As in' above all but the first taught\n")


def test_a_copy_of_what_another_subject_teaches(answers, tmp_path, capsys, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (answers / "third_keras.py").rename(other / "third_keras.py")
    assert run(capsys, monkeypatch, answers, other) == (0, "")
    edit(answers / "first_pytorch.py", "return 2 * number", "return number + number")
    assert run(capsys, monkeypatch, other, answers)[1].splitlines() == [
        "third_keras.py:22: double is not as in first_pytorch.py",
        "second_pytorch.py:22: double is not as in first_pytorch.py",
    ]
    assert run(capsys, monkeypatch, "--fix", answers, other)[0] == 0
    assert "return number + number" in (other / "third_keras.py").read_text()
    (other / "first_pytorch.py").write_text("ONE = 1\n")
    status, printed = run(capsys, monkeypatch, answers, other)
    assert status == 1 and printed.startswith(f"{other / 'first_pytorch.py'} has the name of {answers}")


def test_decorators_and_classes_belong_to_the_piece(tmp_path, capsys, monkeypatch):
    taught = "@decorate\nclass A:\n    x = 1\n\n    def f(self):\n        return 2\n"
    (tmp_path / "first_keras.py").write_text(taught)
    (tmp_path / "second_keras.py").write_text(f"# As in first_keras.py\n{taught}".replace("@decorate", "@other"))
    assert run(capsys, monkeypatch, tmp_path)[0] == 1
    assert run(capsys, monkeypatch, "--fix", tmp_path)[0] == 0
    assert (tmp_path / "second_keras.py").read_text() == f"# As in first_keras.py\n{taught}"


MORE_IMPORTS = {"Question_digits": {"sklearn", "scipy"}}  # what a subject's answers need beside the usual


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_answer_is_one_file_of_its_framework_alone(script):
    text = script.read_text("utf-8")
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    framework = {"pytorch": "torch"}.get(name := script.stem.rsplit("_", 1)[1], name)
    assert framework in imported
    others = {"numpy", "cv2", "matplotlib", "tqdm"} | ({"jax"} if framework == "keras" else set())  # of its backends
    others |= MORE_IMPORTS.get(script.parents[1].name, set())
    assert imported <= sys.stdlib_module_names | {framework} | others
    assert len(text.splitlines()) <= 660 and max(map(len, text.splitlines())) <= 120


def test_every_answer_has_the_same_names():
    for script in SCRIPTS:
        pieces = copies.read_pieces(Path(script))
        wanted = {"read_options", "main", "stop", "write_whole"}
        wanted |= {"load_newts"} if script.parents[1].name == "Question_semaseg" else set()
        if is_trained(script):
            wanted |= {"build_network", "compute_loss", "train", "predict", "test"}
        assert wanted <= pieces.keys()
