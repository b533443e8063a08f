"""tools/fill_lessons.py fills what is marked, says what is stale or not measured yet, and refuses what is wrong."""

import json
import sys

import fill_lessons
import pytest

OLD = '''"""The old answer.

Everything is new here.
"""

import functools

# How much a step changes.
RATE = 0.1  # of learning
STEPS = 3


@functools.cache
def build(size):
    """Return a network."""
    layers = []
    for _ in range(size):
        layers.append("conv")
    layers.append("relu")
    layers.append("norm")

    layers.append("last")
    return layers


class Network:
    size = 3

    def forward(self, x):
        return x + 1

    @property
    def width(self):
        return 2


def gone():
    return 1


def same():
    return 0
'''

NEW = '''"""The new answer.

New here: RATE, STEPS, build, come. All else is as in 01_old_pytorch.py.
"""

RATE = 0.2
STEPS = 4


def build(size):
    """Return a network."""
    layers = []
    for _ in range(size):
        layers.append("conv")
    layers.append("relu")
    layers.append("norm")

    layers.append("best")
    return layers


def same():
    return 0


def come():
    return 2


if __name__ == "__main__":
    build(STEPS)
'''

README = """# The repository

<!-- results -->
<!-- end -->
"""

# The order of the ladder is not that of the alphabet, nor that of the file.
EXERCISE = """
[[exercise]]
name = "{}"
subject = "semaseg"
number = {}
trains = true
predicts = true
parameters = 1
en = "{} things"
ja = "{} を作る"
"""
SUBJECT = """
[[subject]]
name = "{}"
folder = "{}"
title_en = "t"
title_ja = "t"
framework_free = []
"""
NAMES = ("old", "new", "zebra", "apple", "lemon", "uneven", "broken")


def write_exercises():
    """Return the text of an exercises.toml of two subjects, the second without exercises."""
    entries = [EXERCISE.format(name, number, name, name) for number, name in enumerate(NAMES, start=1)]
    entries = entries[:1] + [f'{entry}from = "old"\n' for entry in entries[1:]]
    return (
        SUBJECT.format("semaseg", "Question_semaseg")
        + SUBJECT.format("digits", "Question_digits")
        + "".join(reversed(entries))
    )


def measured(miou, seconds):
    numbers = {"iterations": 600, "miou": miou, "iou": {"background": 0.9, "newt": 2 * miou - 0.9}}
    numbers |= {"pixel_accuracy": 0.95, "seconds": seconds, "parameters": 47553}
    return numbers | {"peak_memory_mb": 1234.5, "first_loss": 1.0986, "last_loss": 0.25}


RESULTS = {
    "machine": {"cores": 2, "memory_gb": 24},
    "answers": {
        "apple_pytorch": measured(0.7, 51.4),
        "apple_keras": measured(0.65, 60),
        "lemon_keras": {"iterations": 9, "first_loss": 0.5, "seconds": 7},
        "uneven_keras": {"iterations": 9},
        "uneven_chainer": {"iterations": 60},
        "zebra_chainer": measured(0.5, 200) | {"iterations": 60, "peak_memory_mb": None},
    },
}
SPREAD = {
    "apple": {"framework": "pytorch", "seeds": [0, 1, 2], "miou": [0.6, 0.7, 0.8], "iterations": 400},
    "zebra": {"framework": "keras", "seeds": [1, 0], "miou": [0.5, 0.5], "iterations": 60},
}


@pytest.fixture
def repository(tmp_path):
    """A repository of two answers, results, and a README with a region that is not filled yet."""
    answers, assets = tmp_path / "Question_semaseg/answers", tmp_path / "Question_semaseg/assets"
    answers.mkdir(parents=True)
    assets.mkdir()
    (answers / "01_old_pytorch.py").write_text(OLD)
    (answers / "02_new_pytorch.py").write_text(NEW)
    (tmp_path / "exercises.toml").write_text(write_exercises(), "utf-8")
    (assets / "results.json").write_text(json.dumps(RESULTS))
    (tmp_path / "README.md").write_text(README)
    return tmp_path


@pytest.fixture
def run(repository, capsys, monkeypatch):
    """Run the tool on the repository with some arguments: (exit status, lines on stdout, lines on stderr)."""

    def run_once(*arguments):
        monkeypatch.setattr(sys, "argv", ["fill_lessons.py", *arguments])
        status = 0
        try:
            fill_lessons.main(repository)
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run_once


@pytest.fixture
def fill(repository):
    """Fill one marker in a lesson and return the text between it and its end."""

    def fill_one(marker, name="README.md"):
        path = repository / "Question_semaseg" / name
        path.write_text(f"before\n<!-- {marker} -->\nanything\n<!-- end -->\nafter\n", "utf-8")
        text, stale, waiting = fill_lessons.fill(path, repository)
        assert (stale, waiting) == ([(2, marker)], [])
        before, after = f"before\n<!-- {marker} -->\n\n", "\n\n<!-- end -->\nafter\n"
        assert text.startswith(before) and text.endswith(after)
        return text.removeprefix(before).removesuffix(after)

    return fill_one


@pytest.mark.parametrize("answer", ("old_pytorch", "01_old_pytorch"))
def test_code_comes_as_it_stands_in_the_order_named(fill, answer):
    assert fill(f"code {answer} gone build STEPS RATE") == (
        "```python\ndef gone():\n    return 1\n\n\n"
        "@functools.cache\n" + OLD[OLD.index("def build") : OLD.index("\n\n\nclass")] + "\n\n\n"
        "STEPS = 3\n# How much a step changes.\nRATE = 0.1  # of learning\n```"
    )


def test_a_method_stands_at_the_margin_with_its_decorator(fill):
    wanted = "```python\n@property\ndef width(self):\n    return 2\n```"
    assert fill("code old_pytorch Network.width") == wanted


def test_new_is_what_the_docstring_names(fill):
    body = NEW[NEW.index("def build") : NEW.index("\n\n\ndef same")]
    come = "def come():\n    return 2"
    assert fill("new new_pytorch") == f"```python\nRATE = 0.2\nSTEPS = 4\n\n\n{body}\n\n\n{come}\n```"
    text = fill("new old_pytorch")
    assert all(name in text for name in ("RATE", "STEPS", "class Network", "def gone", "def same"))


def test_exercises_are_those_of_the_subject_in_their_order_with_links_from_the_file(fill, repository, run):
    names = ("PyTorch", "TensorFlow", "Keras", "Chainer")
    rows = []
    for number, exercise in enumerate(NAMES, start=1):
        links = [f"[{name}](answers/{number:02}_{exercise}_{name.lower()}.py)" for name in names]
        rows.append(f"| {number} | `{exercise}` | {exercise} things | {' · '.join(links)} |")
    head = ["|  | exercise | what you build | answers |", "| --- | --- | --- | --- |"]
    assert fill("exercises semaseg").splitlines() == head + rows
    japanese = fill("exercises semaseg", "README.ja.md").splitlines()
    assert japanese[0] == "|  | 問題 | 作るもの | 答え |" and "| old を作る |" in japanese[2]
    (repository / "README.md").write_text("<!-- exercises semaseg -->\n<!-- end -->\n")
    assert run()[0] == 0
    assert "[Keras](Question_semaseg/answers/01_old_keras.py)" in (repository / "README.md").read_text("utf-8")
    (repository / "Dataset").mkdir()
    (repository / "Dataset/README.md").write_text("<!-- exercises semaseg -->\n<!-- end -->\n")
    assert run()[0] == 0
    assert "(../Question_semaseg/answers/02_new_pytorch.py)" in (repository / "Dataset/README.md").read_text("utf-8")


def test_a_difference_shows_the_lines_around_it_and_names_the_piece(fill):
    assert fill("diff old_pytorch new_pytorch build gone come") == "\n".join(
        [
            "```diff",
            "-@functools.cache",
            " def build(size):",
            '     """Return a network."""',
            "...",
            '     layers.append("norm")',
            "",
            '-    layers.append("last")',
            '+    layers.append("best")',
            "     return layers",
            "...",
            "-def gone():",
            "-    return 1",
            "...",
            "+def come():",
            "+    return 2",
            "```",
        ]
    )


@pytest.mark.parametrize("lines", (1, 2))
def test_a_difference_far_from_the_name_shows_the_name(fill, repository, lines):
    """Between the name and the two lines before the change stands nothing (then no dots) or one line."""
    new = repository / "Question_semaseg/answers/02_new_pytorch.py"
    body = "    step()\n" * lines
    for name, end in (("01_old", 1), ("02_new", 2)):
        new.with_name(f"{name}_pytorch.py").write_text(f"def run():\n{body}    last()\n    return {end}\n")
    dots = ["..."] if lines == 2 else []
    shown = [" def run():", *dots, "     step()", "     last()", "-    return 1", "+    return 2"]
    assert fill("diff old_pytorch new_pytorch run").splitlines()[1:-1] == shown


def test_a_difference_in_a_long_constant_shows_its_name(fill, repository):
    answers = repository / "Question_semaseg/answers"
    for name, size in (("01_old", 8), ("02_new", 2)):
        lines = "".join(f'    "{key}": 1,\n' for key in "abc")
        (answers / f"{name}_pytorch.py").write_text(f'NUMBERS = {{\n{lines}    "size": {size},\n}}\n')
    wanted = [" NUMBERS = {", "...", '     "b": 1,', '     "c": 1,', '-    "size": 8,', '+    "size": 2,', " }"]
    assert fill("diff old_pytorch new_pytorch NUMBERS").splitlines()[1:-1] == wanted


@pytest.mark.parametrize("exercise", ("apple", "04_apple"))
def test_results_of_an_exercise(fill, exercise):
    assert fill(f"results {exercise}").splitlines() == [
        "| `apple`, 600 iterations | PyTorch | TensorFlow | Keras | Chainer |",
        "| --- | --- | --- | --- | --- |",
        "| mIoU | 0.700 | – | 0.650 | – |",
        "| IoU, background | 0.900 | – | 0.900 | – |",
        "| IoU, newt | 0.500 | – | 0.400 | – |",
        "| pixel accuracy | 0.950 | – | 0.950 | – |",
        "| loss, first iteration | 1.099 | – | 1.099 | – |",
        "| loss, mean of the last 5 % | 0.250 | – | 0.250 | – |",
        "| seconds, whole run | 51 | – | 60 | – |",
        "| peak memory, MB | 1234 | – | 1234 | – |",
    ]


def test_results_of_the_parts_of_a_run(fill, repository):
    parts = {"scratch": {"final_loss": 1.25, "pixel_accuracy": 0.5, "miou": 0.25, "iou": {"newt": 1.0}}}
    parts |= {"all of them": {"loss": 0.5, "pixel_accuracy": 0.75, "miou": 0.125}}
    answers = {"lemon_pytorch": {"parts": parts}, "lemon_keras": {"parts": {"scratch": parts["scratch"]}}}
    (repository / "Question_semaseg/assets/results.json").write_text(json.dumps({"answers": answers}))
    assert fill("results lemon parts").splitlines() == [
        "| loss, pixel accuracy, mIoU | PyTorch | TensorFlow | Keras | Chainer |",
        "| --- | --- | --- | --- | --- |",
        "| scratch | 1.250, 0.500, 0.250 | – | 1.250, 0.500, 0.250 | – |",
        "| all of them | 0.500, 0.750, 0.125 | – | – | – |",
    ]
    assert "| すべて | 0.500, 0.750, 0.125 |" in fill("results lemon parts", "README.ja.md")
    for wrong in ("results lemon steps", "results apple parts"):
        with pytest.raises(fill_lessons.WrongMarker, match="run make lesson-figures"):
            fill(wrong)


def test_a_page_of_an_exercise_has_the_numbers_and_links_of_its_subject(repository, run):
    (repository / "Question_digits/assets").mkdir(parents=True)
    (repository / "Question_digits/assets/results.json").write_text(json.dumps(RESULTS))
    (repository / "Question_semaseg/assets/results.json").unlink()
    page = repository / "Question_digits/lesson/01_apple.ja.md"
    page.parent.mkdir()
    page.write_text("<!-- results apple -->\n<!-- end -->\n<!-- exercises semaseg -->\n<!-- end -->\n")
    assert run("--check")[1][-2:] == [
        f"Question_digits/lesson/01_apple.ja.md:{number}: {words!r} is stale: run python tools/fill_lessons.py"
        for number, words in ((1, "results apple"), (3, "exercises semaseg"))
    ]
    assert run()[1][-1] == "filled Question_digits/lesson/01_apple.ja.md"
    text = page.read_text("utf-8")
    assert "600 イテレーション" in text and "(../../Question_semaseg/answers/04_apple_keras.py)" in text


PAGE = """# 1. old

## Your task and more

1. Read [the recipe](../README.md#the-recipe), [the paper](https://arxiv.org/abs/1) and [the hints](#hints).

![a figure](../assets/a.svg)

### Below

```
# no heading
[no link](../a.md)
<!-- no marker -->
```

## Hints

none
"""


def test_a_section_of_a_page_stands_in_the_lesson_with_its_links(fill, repository):
    page = repository / "Question_semaseg/lesson/01_old.md"
    page.parent.mkdir()
    page.write_text(PAGE)
    text = fill("section lesson/01_old.md Your task and more")
    wanted = PAGE[PAGE.index("1. Read") : PAGE.index("\n\n## Hints")]
    wanted = wanted.replace("../README.md#the", "#the").replace("(#hints", "(lesson/01_old.md#hints")
    assert text == wanted.replace("../assets", "assets")
    assert fill("section lesson/01_old.md Below").startswith("```\n# no heading")
    assert fill("section lesson/01_old.md Hints") == "none"
    page.write_text(PAGE + "\n[the hints](#hints)\n")
    assert fill("section 01_old.md Hints", "lesson/02_new.md").endswith("[the hints](01_old.md#hints)")


def test_results_leave_out_what_an_exercise_has_not(fill):
    rows = [row.split(" | ")[0] for row in fill("results lemon").splitlines()[2:]]
    assert rows == ["| loss, first iteration", "| seconds, whole run"]
    assert "peak memory" not in fill("results zebra")  # which some systems do not report


def test_what_a_benchmark_measured_is_the_mean_and_the_spread_of_its_runs(fill, repository):
    runs = [{"miou": 0.5, "parameters": 6381}, {"miou": 0.7, "parameters": 6381}]
    rows = ["| --- | --- | --- |", "| as given | 0.600 ± 0.141 | 6,381 |"]
    assets = repository / "Question_semaseg/assets"
    (assets / "ways.json").write_text(json.dumps({"runs": {"as given": runs}}))
    assert fill("measured ways").splitlines() == ["| training | mIoU | parameters |", *rows]
    by_seed = {"code": "0" * 64, "runs": dict(zip("01", runs, strict=True))}
    (assets / "graph_against_cnn.json").write_text(json.dumps({"as given": by_seed}))
    assert fill("measured graph_against_cnn").splitlines() == ["| network | mIoU | parameters |", *rows]
    assert "| 既定値のまま | 0.600 ± 0.141 | 6,381 |" in fill("measured ways", "README.ja.md")


def test_results_of_all_stand_in_the_order_of_the_ladder(fill):
    assert fill("results").splitlines() == [
        "| exercise | iterations | PyTorch | TensorFlow | Keras | Chainer |",
        "| --- | --- | --- | --- | --- | --- |",
        "| `zebra` | 60 | – | – | – | 0.500, 200 s |",
        "| `apple` | 600 | 0.700, 51 s | – | 0.650, 60 s | – |",
        "",
        "mIoU on the test images, and seconds of the whole run: start, reading, training and testing, "
        "on 2 cores with 24 GiB of memory.",
    ]


def test_one_core_is_not_plural(fill, repository):
    path = repository / "Question_semaseg/assets/results.json"
    path.write_text(json.dumps(RESULTS | {"machine": {"cores": 1, "memory_gb": 24}}))
    assert fill("results").endswith(", on 1 core with 24 GiB of memory.")
    assert "1 コア、メモリー 24 GiB" in fill("results", "README.ja.md")


def test_the_spread_is_each_seed_the_mean_and_the_deviation(fill, repository):
    path = repository / "Question_semaseg/assets/results.json"
    path.write_text(json.dumps(RESULTS | {"spread": SPREAD}))
    assert fill("spread").splitlines() == [
        "| exercise | iterations | seed 0 | seed 1 | seed 2 | mean | standard deviation |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| `zebra` | 60 | 0.500 | 0.500 | – | 0.500 | 0.000 |",
        "| `apple` | 400 | 0.600 | 0.700 | 0.800 | 0.700 | 0.100 |",
        "",
        "mIoU on the test images, in PyTorch and Keras.",
    ]
    assert "| シード 0 | シード 1 |" in fill("spread", "README.ja.md")


@pytest.mark.parametrize(
    "spread",
    (
        {"apple": SPREAD["apple"] | {"seeds": [0]}},  # one seed for three runs
        {"apple": SPREAD["apple"] | {"seeds": [0], "miou": [0.5]}},  # no deviation
        {"apple": SPREAD["apple"] | {"framework": "theano"}},
        {"apple": {}},
        {"pear": SPREAD["apple"]},
        [],
    ),
)
def test_a_spread_that_cannot_be_read(repository, run, spread):
    (repository / "README.md").write_text("<!-- spread -->\n<!-- end -->\n")
    path = repository / "Question_semaseg/assets/results.json"
    path.write_text(json.dumps(RESULTS | {"spread": spread}))
    status, out, (line,) = run()
    assert (status, out) == (2, []) and line.startswith("fill_lessons.py: README.md:1: ") and "results.json" in line


@pytest.mark.parametrize("arguments", (["--check"], []))
def test_what_is_not_measured_yet_stays_and_is_reported_and_the_rest_is_filled(repository, run, arguments):
    path = repository / "README.md"
    path.write_text("<!-- measured ways -->\nbefore\n<!-- end -->\n<!-- spread -->\n<!-- end -->\n" + README)
    text = path.read_text()
    waiting = [
        "README.md:1: 'measured ways' cannot be filled: there is no ways.json yet: run benchmarks/ways.py",
        "README.md:4: 'spread' cannot be filled: results.json has no spread over seeds yet: run benchmarks/seeds.py",
    ]
    last = ["README.md:8: 'results' is stale: run python tools/fill_lessons.py"] if arguments else ["filled README.md"]
    assert run(*arguments) == (1, waiting + last, [])
    filled = path.read_text("utf-8")
    assert filled.startswith("<!-- measured ways -->\nbefore\n<!-- end -->\n<!-- spread -->\n<!-- end -->\n# The")
    assert (filled == text) == bool(arguments) and ("0.700" in filled) == (not arguments)
    (repository / "Question_semaseg/assets/results.json").unlink()
    path.write_text(README)
    missing = "README.md:3: 'results' cannot be filled: there is no results.json yet: run make lesson-figures"
    assert run(*arguments) == (1, [missing], []) and path.read_text() == README


def test_japanese_labels_and_the_same_numbers(fill):
    english, japanese = (fill("results apple", name) for name in ("README.md", "README.ja.md"))
    rows = [[line.split(" | ") for line in text.splitlines()] for text in (english, japanese)]
    assert [row[1:] for row in rows[0]] == [row[1:] for row in rows[1]]
    labels = "".join(row[0] for row in rows[1])
    assert all(
        label in labels for label in ("600 イテレーション", "背景", "イモリ", "画素の正解率", "秒数", "メモリー")
    )
    overview = fill("results", "README.ja.md")
    assert (
        "| 問題 | イテレーション |" in overview and "0.700、51 秒" in overview and "2 コア、メモリー 24 GiB" in overview
    )
    assert fill_lessons.ENGLISH.keys() <= fill_lessons.JAPANESE.keys()


def test_all_files_are_filled_and_then_nothing_is_stale(repository, run):
    lesson, benchmarks = repository / "Question_semaseg/README.ja.md", repository / "benchmarks/README.md"
    benchmarks.parent.mkdir()
    lesson.write_text("<!-- new new_pytorch -->\n<!-- end -->\n\n  <!-- results apple -->\n  <!-- end -->", "utf-8")
    benchmarks.write_text("<!-- code old_pytorch gone -->\n<!-- end -->\n\nno marker\n")
    stale = [
        "README.md:3: 'results' is stale: run python tools/fill_lessons.py",
        "Question_semaseg/README.ja.md:1: 'new new_pytorch' is stale: run python tools/fill_lessons.py",
        "Question_semaseg/README.ja.md:4: 'results apple' is stale: run python tools/fill_lessons.py",
        "benchmarks/README.md:1: 'code old_pytorch gone' is stale: run python tools/fill_lessons.py",
    ]
    before = read_all(repository)
    assert run("--check") == (1, stale, [])
    assert read_all(repository) == before
    filled = ["filled README.md", "filled Question_semaseg/README.ja.md", "filled benchmarks/README.md"]
    assert run() == (0, filled, [])
    assert set(read_all(repository)) == set(before)
    for arguments in (["--check"], []):
        after = read_all(repository)
        assert run(*arguments) == (0, [], []) and read_all(repository) == after
    text = lesson.read_text("utf-8")
    assert text.endswith("\n\n  <!-- end -->") and "\n  | mIoU | 0.700 |" in text

    lesson.write_text(text.replace("0.700", "0.900"), "utf-8")  # typed by hand
    numbers = [line for line, _ in fill_lessons.fill(lesson, repository)[1]]
    assert len(numbers) == 1 and run("--check")[0] == 1
    assert run()[0] == 0 and lesson.read_text("utf-8") == text

    answer = repository / "Question_semaseg/answers/01_old_pytorch.py"
    answer.write_text(OLD.replace("return 1", "return 11"))
    assert run("--check")[1] == stale[3:]


def test_a_marker_in_a_block_of_code_is_an_example(repository, run):
    path = repository / "CONTRIBUTING.md"
    path.write_text("````\n```\n<!-- code no_such -->\n```\n````\n`<!-- wrong -->` and <!-- this -->\n")
    assert run()[1] == ["filled README.md"]
    path.write_text(path.read_text() + "<!-- wrong -->\n")
    assert run()[0] == 2


@pytest.mark.parametrize(
    ("lines", "number", "said"),
    [
        (["<!-- cod old_pytorch gone -->", "<!-- end -->"], 1, "no marker 'cod'"),
        (["<!-- -->"], 1, "no marker ''"),
        (["text", "<!-- end -->"], 2, "no marker 'end'"),
        (["<!-- code older_pytorch gone -->", "<!-- end -->"], 1, "older: no such exercise: give old"),
        (["<!-- code 02_old_pytorch gone -->", "<!-- end -->"], 1, "02_old: no such exercise: give old"),
        (["<!-- code old_theano gone -->", "<!-- end -->"], 1, "theano: no such framework"),
        (["<!-- code old_keras gone -->", "<!-- end -->"], 1, "there is no 01_old_keras.py"),
        (["<!-- code old_pytorch gone going -->", "<!-- end -->"], 1, "old_pytorch.py has no going"),
        (["<!-- code old_pytorch Network.going -->", "<!-- end -->"], 1, "has no Network.going"),
        (["<!-- code old_pytorch -->", "<!-- end -->"], 1, "name functions"),
        (["<!-- code -->", "<!-- end -->"], 1, "'code' is not how"),
        (["<!-- new old_pytorch gone -->", "<!-- end -->"], 1, "'new old_pytorch gone' is not how"),
        (["<!-- diff old_pytorch new_pytorch -->", "<!-- end -->"], 1, "name functions"),
        (["<!-- diff old_pytorch new_pytorch going -->", "<!-- end -->"], 1, "neither 01_old_pytorch.py nor"),
        (["<!-- diff old_pytorch new_pytorch same -->", "<!-- end -->"], 1, "same is the same"),
        (["<!-- new broken_pytorch -->", "<!-- end -->"], 1, "broken_pytorch.py: line 1 is no Python"),
        (["<!-- new lemon_pytorch -->", "<!-- end -->"], 1, "05_lemon_pytorch.py does not say what is new"),
        (["<!-- new apple_pytorch -->", "<!-- end -->"], 1, "nothing in 04_apple_pytorch.py is new"),
        (["<!-- exercises -->", "<!-- end -->"], 1, "'exercises' is not how"),
        (["<!-- exercises voc -->", "<!-- end -->"], 1, "voc: no such subject: give one of semaseg, digits"),
        (["<!-- section no.md Task -->", "<!-- end -->"], 1, "there is no no.md"),
        (["<!-- section README.md Task -->", "<!-- end -->"], 1, "README.md has no heading 'Task'"),
        (["<!-- section README.md A -->", "<!-- end -->", "# A", "<!-- new a -->"], 1, "README.md:4 is a marker"),
        (["<!-- results apple parts lemon -->", "<!-- end -->"], 1, "'results apple parts lemon' is not how"),
        (["<!-- results pear -->", "<!-- end -->"], 1, "pear: no such exercise"),
        (["<!-- results new -->", "<!-- end -->"], 1, "results.json has no new"),
        (["<!-- results uneven -->", "<!-- end -->"], 1, "not the same iterations"),
        (["<!-- code broken_pytorch gone -->", "<!-- end -->"], 1, "broken_pytorch.py: line 1 is no Python"),
        (["<!-- code old_pytorch gone -->", "text"], 1, "no <!-- end -->"),
        (["<!-- code old_pytorch gone -->", "<!-- new new_pytorch -->", "<!-- end -->"], 1, "no <!-- end -->"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_and_nothing_written(repository, run, lines, number, said):
    answers = repository / "Question_semaseg/answers"
    (answers / "07_broken_pytorch.py").write_text("def gone(:\n")
    (answers / "05_lemon_pytorch.py").write_text("def gone():\n    return 1\n")
    (answers / "04_apple_pytorch.py").write_text('"""All else is as in 01_old_pytorch.py."""\n\nSTEPS = 3\n')
    (repository / "Question_semaseg/README.md").write_text("\n".join(lines))
    before = read_all(repository)
    for arguments in ([], ["--check"]):
        status, out, (line,) = run(*arguments)
        assert (status, out) == (2, [])
        assert line.startswith(f"fill_lessons.py: Question_semaseg/README.md:{number}: ") and said in line
    assert read_all(repository) == before


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_text("{"), "run make lesson-figures"),
        (lambda path: path.write_text("[]"), "run make lesson-figures"),
        (lambda path: path.write_text('{"answers": {"apple_keras": {"miou": 0.5}}}'), "'iterations'"),
        (lambda path: path.write_text('{"answers": {}, "machine": {"cores": 2, "memory_gb": null}}'), "no memory_gb"),
        (
            lambda path: path.write_text('{"answers": {"pear_keras": {"miou": 0.5}}}'),
            "has pear, exercises.toml has not",
        ),
    ],
)
def test_results_that_cannot_be_read(repository, run, damage, said):
    damage(repository / "Question_semaseg/assets/results.json")
    status, out, (line,) = run()
    assert (status, out) == (2, []) and line.startswith("fill_lessons.py: README.md:3: ") and said in line
    assert (repository / "README.md").read_text() == README


def test_other_mistakes_are_told_in_one_line(repository, run):
    assert run("--chek") == (2, [], ["fill_lessons.py: unrecognized arguments: --chek"])
    lesson = repository / "Question_semaseg/README.md"
    lesson.write_bytes(b"\xff")
    assert run() == (2, [], [f"fill_lessons.py: {lesson}: not UTF-8: save it as UTF-8"])


def read_all(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
