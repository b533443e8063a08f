"""The Dockerfiles of the pipeline, checked without a daemon: linted, and what they copy is there and is enough."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ANSWERS, ROOT, run_python
from packaging.specifiers import SpecifierSet
from test_lessons import ASPECTS, list_files, read_page

DOCKERFILES = [ROOT / "docker/cpu/Dockerfile", ROOT / "docker/gpu/Dockerfile"]
PAGES = [ROOT / "docker/README.md", ROOT / "docker/README.ja.md"]
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
by_dockerfile = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)


def read_dockerfile(text):
    """Return [(instruction, the rest of its line)]."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).split("\n")
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def is_ignored(name, text):
    """Tell whether a .dockerignore of that text keeps a file from the daemon: the last line that matches decides."""
    ignored = False
    for line in text.split("\n"):
        pattern = line.strip().removeprefix("!").strip("/")
        if pattern and not line.startswith("#"):
            parts = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
            words = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
            regex = "".join(parts.get(word) or re.escape(word) for word in words)
            if re.fullmatch(f"{regex}(/.*)?", name):  # a folder stands for all that is in it
                ignored = not line.startswith("!")
    return ignored


def list_sources(text):
    """Return the paths that the COPY lines of a Dockerfile name."""
    copies = [shlex.split(rest) for word, rest in read_dockerfile(text) if word == "COPY"]
    return [word for words in copies for word in words[:-1] if not word.startswith("--")]


def list_copied(text, names):
    """Return those of the repository's files that the COPY lines of a Dockerfile take, whatever .dockerignore says."""
    sources = list_sources(text)
    return [name for name in names if any(name == each or name.startswith(f"{each}/") for each in sources)]


def find_faults(text, ignore, names):
    """Return a line for each fault of a Dockerfile, beside a .dockerignore, where the repository has files of names."""
    lines, faults = read_dockerfile(text), []
    for word, rest in lines:
        if word == "FROM" and not re.fullmatch(r"[a-z]+:\d+\.\d+\.\d+-[a-z-]+", rest):
            faults.append(f"FROM {rest}: not pinned")
    copied = list_copied(text, names)
    for each in list_sources(text):
        if not any(name == each or name.startswith(f"{each}/") for name in names):
            faults.append(f"COPY {each}: there is no such file")
    faults += [f"{name}: copied, but ignored" for name in copied if is_ignored(name, ignore)]
    faults += [f"{name}: sent, but not copied" for name in names if name not in copied and not is_ignored(name, ignore)]
    users = [rest.split(":")[0] for word, rest in lines if word == "USER"]
    if not users or users[-1] in ("root", "0"):
        faults.append("runs as root")
    entries = [json.loads(rest) for word, rest in lines if word == "ENTRYPOINT"]
    if not entries or entries[-1][0] != "python" or entries[-1][1] not in copied:
        faults.append("its entry point is not there")
    return faults


def list_names():
    return [path.relative_to(ROOT).as_posix() for path in list_files()]


@by_dockerfile
def test_a_dockerfile_is_pinned_copies_what_is_there_and_runs_as_an_ordinary_user(dockerfile):
    assert find_faults(dockerfile.read_text("utf-8"), (ROOT / ".dockerignore").read_text("utf-8"), list_names()) == []


@by_dockerfile
@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        ("Dockerfile", r":[\d.]+-slim", ":slim", "not pinned"),
        ("Dockerfile", r"^FROM python:\S+", "FROM python", "not pinned"),
        ("Dockerfile", "exercises.toml", "exercise.toml", "COPY exercise.toml: there is no such file"),
        ("Dockerfile", "exercises.toml", "README.md", "README.md: copied, but ignored"),
        ("Dockerfile", "Dataset/draw_voc.py ", "", "Dataset/draw_voc.py: sent, but not copied"),
        ("Dockerfile", "USER 1000", "USER root", "runs as root"),
        ("Dockerfile", "^USER 1000", "", "runs as root"),
        ("Dockerfile", '"tools/street.py"', '"tools/streets.py"', "its entry point is not there"),
        (".dockerignore", "!tools/street.py", "", "tools/street.py: copied, but ignored"),
        (".dockerignore", r"answers/\*.py", r"answers/0?_*h.py", "_keras.py: copied, but ignored"),
        (".dockerignore", r"^\*$", "outputs", "README.md: sent, but not copied"),
        (".dockerignore", r"\Z", "Dataset\n", "Dataset/draw_newts.py: copied, but ignored"),
    ],
)
def test_a_fault_of_a_dockerfile_is_found(dockerfile, file, old, new, fault):
    texts = {"Dockerfile": dockerfile.read_text("utf-8"), ".dockerignore": (ROOT / ".dockerignore").read_text("utf-8")}
    texts[file], found = re.subn(old, new, texts[file], count=1, flags=re.MULTILINE)
    faults = find_faults(*texts.values(), list_names())
    assert found and faults and any(each.endswith(fault) for each in faults), faults


@pytest.mark.parametrize(
    ("text", "name", "ignored"),
    [
        ("*\n!a/*.py", "a/b.py", False),
        ("*\n!a/*.py", "a/b/c.py", True),
        ("*\n!a/**/*.py", "a/b/c.py", False),
        ("*\n!a", "a/b/c.py", False),
        ("*\n!a\n**/c.py", "a/b/c.py", True),
        ("# *", "a", False),
        ("a?", "ab", True),
        ("a?", "a/", False),
        ("a.py", "axpy", False),
    ],
)
def test_patterns_of_dockerignore(text, name, ignored):
    assert is_ignored(name, text) == ignored


@by_dockerfile
def test_the_requirements_that_a_dockerfile_names_are_in_the_file(dockerfile):
    text, requirements = (path.read_text("utf-8") for path in (dockerfile, ROOT / "requirements.txt"))
    for names in re.findall(r"grep -vE '\^\((.+?)\)=='", text):
        assert set(names.split("|")) <= set(re.findall(r"^(\w+)==", requirements, re.MULTILINE))
    (wanted,) = re.findall(r"^setuptools(.+)$", requirements, re.MULTILINE)
    assert all(version in SpecifierSet(wanted) for version in re.findall(r"setuptools==([\d.]+)", text))


@by_dockerfile
def test_what_an_image_holds_is_enough(dockerfile, tmp_path):
    """Of the repository: streets are drawn there, and all answers of the pipeline are found."""
    for name in list_copied(dockerfile.read_text("utf-8"), list_names()):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    done = run_python("tools/street.py", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_python("Dataset/draw_streets.py", "--train", 1, "--val", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "Dataset/streets").rglob("*_leftImg8bit.png"))) == 2
    answers = [path.relative_to(ROOT) for (name, _), path in ANSWERS.items() if name.startswith("street_")]
    assert len(answers) == 24 and all((tmp_path / each).exists() for each in answers)


@pytest.mark.skipif(not HADOLINT, reason="hadolint is for Linux alone")
@by_dockerfile
def test_hadolint_finds_nothing_and_finds_what_is_wrong(dockerfile, tmp_path):
    def lint(text):
        (tmp_path / "Dockerfile").write_text(text, "utf-8")
        command = [HADOLINT, "--no-color", tmp_path / "Dockerfile"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
        return done.returncode, done.stdout + done.stderr

    text = dockerfile.read_text("utf-8")
    assert lint(text) == (0, "")
    for old, new, rule in (
        (r":[\d.]+-slim\S*", ":latest", "DL3007"),
        (r"--no-cache-dir ", "", "DL3042"),
        ("USER 1000", "USER root", "DL3002"),
        (r'\["python", "tools/street.py"\]', "python tools/street.py", "DL3025"),
    ):
        status, said = lint(re.sub(old, new, text))
        assert status == 1 and rule in said, said


@pytest.mark.parametrize("aspect", ASPECTS)
def test_both_languages_hold_together(aspect):
    english, japanese = (ASPECTS[aspect](read_page(path)) for path in PAGES)
    assert english == japanese


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_of_the_page_are_right(page):
    """Each builds by a Dockerfile that is there, or runs an image that was built, with options of tools/street.py."""
    known = re.findall(r"--[a-z]+", run_python("tools/street.py", "--help", cwd=ROOT).stdout)
    lines = [line for _, code in read_page(page).blocks for line in code.split("\n")]
    built = []
    for words in map(shlex.split, lines):
        if words[:2] == ["docker", "build"]:
            assert (ROOT / words[words.index("--file") + 1]) in DOCKERFILES and words[-1] == "."
            built.append(words[words.index("--tag") + 1])
        elif words[:2] == ["docker", "run"]:
            (image,) = (word for word in words if word in built)
            options = words[words.index(image) + 1 :]
            assert [word for word in options if word.startswith("--") and word not in known] == []
    assert len(built) == 2
