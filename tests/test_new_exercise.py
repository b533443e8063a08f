"""tools/new_exercise.py makes an exercise that passes copies.py and runs in all frameworks, or stops in one line."""

import csv
import json
import re
import shutil
from pathlib import Path

import fill_lessons
import pytest
from conftest import ROOT, run_python
from exercises import FRAMEWORKS, answer_path, find_exercise, find_subject, read_exercises

ENGLISH = "a skip connection that is weighted by attention"
JAPANESE = "注意機構で重みを付けたスキップ接続"


def copy_repository(folder):
    """Copy what the script and copies.py need."""
    shutil.copytree(ROOT / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("Question_*/answers"):
        shutil.copytree(path, folder / path.relative_to(ROOT), ignore=shutil.ignore_patterns("__pycache__"))
    for path in list_lessons():
        (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    shutil.copy(ROOT / "exercises.toml", folder)
    return folder


def list_lessons():
    return [path for name in ("README*.md", "lesson/*.md") for path in ROOT.glob(f"Question_*/{name}")]


def add(repository, name, subject, base, english=ENGLISH, japanese=JAPANESE):
    arguments = [name, "--subject", subject, "--from", base, "--en", english, "--ja", japanese]
    return run_python("tools/new_exercise.py", *arguments, cwd=repository)


def read_all(repository):
    paths = [path for path in repository.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(repository): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def attention(tmp_path_factory):
    """A copy of the repository with the new exercise attention, and what the script gave."""
    repository = copy_repository(tmp_path_factory.mktemp("new"))
    return repository, add(repository, "attention", "semaseg", "concat")


def test_it_writes_four_answers_two_pages_and_an_entry(attention):
    repository, result = attention
    assert result.returncode == 0 and not result.stderr
    stem = f"{1 + max(each.number for each in read_exercises() if each.subject == 'semaseg'):02}_attention"
    new = {path.as_posix() for path in read_all(repository).keys() - {path.relative_to(ROOT) for path in list_own()}}
    pages = {f"Question_semaseg/lesson/{stem}{suffix}" for suffix in (".md", ".ja.md")}
    assert new == pages | {f"Question_semaseg/answers/{stem}_{framework}.py" for framework in FRAMEWORKS}
    for path in new:
        assert path in result.stdout
    for left in (
        "README.ja.md",
        "make lesson-figures EXERCISE=attention",
        "make format",
        "make test",
        "exercises.toml",
    ):
        assert left in result.stdout
    old, text = (folder.joinpath("exercises.toml").read_text("utf-8") for folder in (ROOT, repository))
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        line for line in old.splitlines() if line.startswith("#")
    ]
    entries = {exercise.name: exercise for exercise in read_exercises(repository / "exercises.toml")}
    names = [line for line in text.splitlines() if line.startswith("name = ")]
    assert names.index('name = "attention"') + 1 == names.index('name = "digits_dataset"')
    made, base = entries.pop("attention"), entries["concat"]
    assert list(entries.values()) == list(read_exercises())
    assert (made.stem, made.subject, made.base, made.en, made.ja) == (stem, "semaseg", "concat", ENGLISH, JAPANESE)
    copied = ("trains", "predicts", "parameters", "test_size", "figure_options", "network_options")
    assert [vars(made)[key] for key in copied] == [vars(base)[key] for key in copied]


def list_own():
    """Return the files of the repository that copy_repository copies."""
    folders = [ROOT / "tools", *ROOT.glob("Question_*/answers")]
    return [path for folder in folders for path in folder.rglob("*")] + [ROOT / "exercises.toml", *list_lessons()]


@pytest.mark.parametrize("suffix", [".md", ".ja.md"])
def test_the_lesson_leads_to_the_new_page_and_keeps_all_else(attention, suffix):
    repository, lesson = attention[0], Path("Question_semaseg")
    *_, last = (each for each in read_exercises() if each.subject == "semaseg")
    stem = f"{last.number + 1:02}_attention"
    old, new = (folder.joinpath(lesson, f"README{suffix}").read_text("utf-8") for folder in (ROOT, repository))
    sections = re.findall(rf"^## {last.number + 1}\. attention.*?(?=^## )", new, re.MULTILINE | re.DOTALL)
    assert len(sections) == 1
    (section,) = sections
    assert new.replace(section, "") == old and old.index(f"## {last.number}. ") < new.index(section)
    assert f"(lesson/{stem}{suffix})" in section
    assert all(f"(answers/{stem}_{framework}.py)" in section for framework in FRAMEWORKS)
    before = lesson / f"lesson/{last.stem}{suffix}"
    old, new = (folder.joinpath(before).read_text("utf-8").splitlines() for folder in (ROOT, repository))
    changed = [line for line in new if line not in old]
    assert len(changed) == 1 and changed[0].endswith(f"[{last.number + 1}. attention]({stem}{suffix})")


@pytest.mark.parametrize("suffix", [".md", ".ja.md"])
def test_the_new_page_has_the_headings_of_all_and_shows_what_changed(attention, suffix):
    from test_lessons import find_broken_links, read_page  # which asks git, and a mutant's folder has none

    *_, last = (each for each in read_exercises() if each.subject == "semaseg")
    folder = attention[0] / "Question_semaseg/lesson"
    path = folder / f"{last.number + 1:02}_attention{suffix}"
    text, stale, waiting = fill_lessons.fill(path, attention[0])
    assert text.count("```diff") == len(stale) == len(FRAMEWORKS) and waiting == []
    assert ("Start from `concat`." if suffix == ".md" else "`concat` から始めます。") in text
    page, base = (read_page(each) for each in (path, folder / f"{last.stem}{suffix}"))
    headings, wanted = ([text for level, text, _ in each.headings if level == 2] for each in (page, base))
    assert headings == [each for each in wanted if each not in ("The recipe", "学習のレシピ")]
    assert find_broken_links(page, list(attention[0].rglob("*"))) == []


def test_it_passes_copies_and_ruff(attention):
    repository, _ = attention
    result = run_python("tools/copies.py", cwd=repository)
    assert (result.returncode, result.stdout) == (0, "")
    shutil.copy(ROOT / "pyproject.toml", repository)
    for command in (["check"], ["format", "--check"]):
        result = run_python(
            "-m", "ruff", *command, "--no-cache", *repository.glob("*/answers/*att*.py"), cwd=repository
        )
        assert result.returncode == 0, result.stdout


@pytest.fixture(scope="module")
def few_newts(tmp_path_factory):
    """A data folder with three images in each part."""
    folder = tmp_path_factory.mktemp("newts")
    for part in ("train", "test"):
        images = ROOT / "Dataset" / part / "images"
        for path in sorted(images.glob("*/*.jpg"))[:3]:
            for name in (path, images.parent / "seg_images" / path.relative_to(images).with_suffix(".png")):
                copy = folder / name.relative_to(ROOT / "Dataset")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(name, copy)
    return folder


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_new_answer_runs(attention, few_newts, fork, tmp_path, framework):
    script = answer_path("attention", framework, attention[0])
    options = ["--data", few_newts, "--out", "out", "--device", "cpu", "--size", 8, "--batch", 2]
    result = fork(script, *options, "--iterations", 2, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    with open(tmp_path / "out/loss.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    metrics = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))
    assert metrics["answer"] == script.stem and 0 <= metrics["miou"] <= 1
    result = fork(script, *options, "--test", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))["miou"] == metrics["miou"]


def test_what_is_written_in_it_stays(attention, tmp_path):
    repository = shutil.copytree(attention[0], tmp_path / "copy")
    path = answer_path("attention", "pytorch", repository)
    text = path.read_text("utf-8").replace("class Network(nn.Module):\n", "class Network(nn.Module):\n    # Mine.\n")
    path.write_text(text, "utf-8")
    assert run_python("tools/copies.py", "--fix", cwd=repository).returncode == 0
    assert path.read_text("utf-8") == text and "# Mine." in text


def test_every_exercise_can_be_started_from(tmp_path):
    repository = copy_repository(tmp_path)
    for exercise in read_exercises():
        result = add(repository, f"{exercise.name}_2", exercise.subject, exercise.name, f"a second {exercise.name}")
        assert result.returncode == 0, result.stderr
    assert "Question_street/lesson/12_street_parallel_2.ja.md" in result.stdout
    # A page that was made leads on to the next one that is made.
    assert "(12_street_parallel_2.md)" in (repository / "Question_street/lesson/11_street_inference_2.md").read_text()
    sections = re.findall(r"^## (\d+)\. ", (repository / "Question_voc/README.md").read_text("utf-8"), re.MULTILINE)
    assert sections == [str(number) for number in range(1, 11)]
    result = run_python("tools/copies.py", cwd=repository)
    assert (result.returncode, result.stdout) == (0, "")
    assert (repository / "exercises.toml").read_text("utf-8").count("\niterations = 300") == 4
    made = read_exercises(repository / "exercises.toml")
    assert len(made) == 2 * len(read_exercises())
    for exercise in made:
        if exercise.name.endswith("_2"):
            base = find_exercise(exercise.base)
            assert exercise.figure_options == base.figure_options
            assert exercise.network_options == base.network_options


def test_a_comment_above_the_next_entry_stays_there(tmp_path):
    repository = copy_repository(tmp_path)
    path = repository / "exercises.toml"
    old, new = '[[exercise]]\nname = "digits_dataset"', '# Digits.\n[[exercise]]\nname = "digits_dataset"'
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    assert add(repository, "toy", "semaseg", "segnet").returncode == 0
    text = path.read_text("utf-8")
    assert f"\n\n{new}" in text and text.index('"toy"') < text.index("# Digits.")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A copy of the repository that no test may change."""
    return copy_repository(tmp_path_factory.mktemp("fresh"))


WRONG = {
    "there is one": (["unet", "semaseg", "concat"], "unet: there is such an exercise"),
    "one of another subject": (["grid_graph", "semaseg", "concat"], "grid_graph: there is such an exercise"),
    "upper case": (["U-Net", "semaseg", "concat"], "U-Net: write the name in lower case, such as grid_graph"),
    "a path": (["../unet", "semaseg", "concat"], "../unet: write the name in lower case"),
    "no such subject": (["toy", "newts", "concat"], "--subject: newts: no such subject: give one of semaseg, digits"),
    "no such base": (["toy", "semaseg", "concta"], "--from: concta: no such exercise: give concat"),
    "a base elsewhere": (["toy", "semaseg", "digits_cnn"], "--from digits_cnn: is of another subject"),
    "nothing built": (["toy", "semaseg", "concat", " "], "--en '': give one line of 1 to 100 characters"),
    "two lines": (["toy", "semaseg", "concat", "a\nb"], "--en 'a\\nb': give one line"),
    "quotes": (["toy", "semaseg", "concat", "a", '"""'], '--ja \'"""\': give one line'),
    "too long": (["toy", "semaseg", "concat", 101 * "a"], "give one line of 1 to 100 characters"),
}


@pytest.mark.parametrize("arguments, message", WRONG.values(), ids=WRONG)
def test_a_wrong_name_is_told_in_one_line_and_nothing_is_written(fresh, arguments, message):
    before = read_all(fresh)
    result = add(fresh, *arguments)
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.startswith("new_exercise.py: ") and message in result.stderr
    assert result.stderr.count("\n") == 1
    assert read_all(fresh) == before


def test_a_missing_answer_of_the_base_stops_it(tmp_path):
    repository = copy_repository(tmp_path)
    answer_path("concat", "chainer", repository).unlink()
    before = read_all(repository)
    result = add(repository, "toy", find_subject("semaseg").name, "concat")
    assert result.returncode == 2 and "09_concat_chainer.py" in result.stderr and result.stderr.count("\n") == 1
    assert read_all(repository) == before


def test_a_file_in_its_place_stops_it(tmp_path):
    repository = copy_repository(tmp_path)
    number = 1 + max(exercise.number for exercise in read_exercises() if exercise.subject == "digits")
    (repository / f"Question_digits/answers/{number:02}_toy_keras.py").write_text("mine = 1\n")
    before = read_all(repository)
    result = add(repository, "toy", "digits", "digits_dataset")
    assert result.returncode == 2 and f"{number:02}_toy_keras.py: there is such a file" in result.stderr
    assert read_all(repository) == before


def test_an_entry_that_does_not_fit_stops_it(tmp_path):
    repository = copy_repository(tmp_path)
    path = repository / "exercises.toml"
    subjects, *entries = path.read_text("utf-8").split("[[exercise]]")
    keys = [
        [line for line in entry.splitlines() if line[:1].isalpha() and "iterations" not in line] for entry in entries
    ]
    inline = ",\n".join(f"    {{ {', '.join(line for line in entry if '[' not in line)} }}" for entry in keys)
    path.write_text(f"exercise = [\n{inline},\n]\n{subjects}", "utf-8")
    assert len(read_exercises(path)) == len(read_exercises())
    before = read_all(repository)
    result = add(repository, "toy", "digits", "digits_cnn")
    assert result.returncode == 2 and "not TOML" in result.stderr and result.stderr.count("\n") == 1
    assert read_all(repository) == before
