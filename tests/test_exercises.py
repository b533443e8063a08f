"""exercises.toml is complete and agrees with the answers; tools/exercises.py reads it and finds what is wrong in it."""

import math
import sys

import copies
import numpy as np
import pytest
from conftest import ROOT
from exercises import (
    EXERCISES,
    FRAMEWORKS,
    answer_path,
    build_network,
    find_exercise,
    find_subject,
    list_earlier,
    load_answer,
    name_of,
    read_exercises,
    read_subjects,
)

by_exercise = pytest.mark.parametrize("exercise", read_exercises(), ids=lambda exercise: exercise.stem)
by_subject = pytest.mark.parametrize("subject", read_subjects(), ids=lambda subject: subject.name)


@by_subject
def test_every_exercise_has_four_answers_and_every_answer_an_exercise(subject):
    ladder = [exercise for exercise in read_exercises() if exercise.subject == subject.name]
    assert [exercise.number for exercise in ladder] == list(range(1, len(ladder) + 1))
    wanted = {f"{exercise.stem}_{framework}.py" for exercise in ladder for framework in FRAMEWORKS}
    assert {path.name for path in (ROOT / subject.folder / "answers").glob("*.py")} == wanted
    assert {answer_path(exercise, framework).name for exercise in ladder for framework in FRAMEWORKS} == wanted


def test_every_folder_of_questions_is_a_subject():
    folders = {path.parent.name for path in ROOT.glob("Question_*/answers")}
    assert folders == {subject.folder for subject in read_subjects()}


def read_options(answer, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [answer.__file__, "--device", "cpu", *arguments])
    return answer.read_options()


@by_exercise
def test_an_entry_agrees_with_the_answer(exercise, monkeypatch):
    answer = load_answer(answer_path(exercise, "pytorch"))
    options = vars(read_options(answer, monkeypatch))
    takes_weights = exercise.name in ("deeplab", "street_test", "street_inference")  # that others have trained
    again = exercise.name == "street_parallel"  # which trains the network of another exercise as that does
    assert exercise.trains == ("lr" in options and not again)
    assert exercise.predicts == (hasattr(answer, "predict") and not takes_weights and not again)
    assert (exercise.reads is not None) == str(options["data"]).startswith("outputs")
    assert exercise.trains or takes_weights or again or not hasattr(answer, "build_network")
    if exercise.subject not in ("voc", "street"):  # whose answers test weights of a file instead
        assert exercise.trains == hasattr(answer, "test") == ("test" in options)
    sizes = answer.NUMBERS["size"][1] if "size" in options else None
    assert exercise.test_size == (sizes and sizes[0])
    for option, values in exercise.network_options.items():
        default = options[option]
        assert values[0] == (" ".join(map(str, default)) if isinstance(default, list | tuple) else str(default))
        for value in values:
            read_options(answer, monkeypatch, f"--{option}", *value.split())
    figure = [word for option, value in exercise.figure_options.items() for word in (f"--{option}", value)]
    changed = vars(read_options(answer, monkeypatch, *figure))
    assert {option for option in options if options[option] != changed[option]} == exercise.figure_options.keys()


@pytest.mark.parametrize("exercise", [each for each in read_exercises() if each.trains], ids=lambda each: each.name)
def test_parameters_are_those_of_the_network(exercise, monkeypatch):
    answer = load_answer(answer_path(exercise, "pytorch"))
    # What the weights are does not count, and drawing the millions of unet and segnet would take seconds.
    rng = type("Zeros", (), {"standard_normal": lambda self, shape, *_, **__: np.zeros(shape)})()
    network = build_network(answer, rng, read_options(answer, monkeypatch))
    number = sum(math.prod(parameter.shape) for parameter in network.parameters() if parameter.requires_grad)
    assert exercise.parameters == number, f"write parameters = {number:_} in exercises.toml"


@by_subject
def test_framework_free_names_are_those_of_the_pieces_that_are_equal_everywhere(subject):
    named, equal, unlike = set(), set(), set()
    for exercise in (exercise for exercise in read_exercises() if exercise.subject == subject.name):
        pieces = [copies.read_pieces(answer_path(exercise, framework)) for framework in FRAMEWORKS]
        named |= pieces[0].keys() & set(subject.framework_free)
        texts = {name: {each[name].text if name in each else None for each in pieces} for name in pieces[0]}
        equal |= {name for name in texts if len(texts[name]) == 1}
        unlike |= {name for name in texts if len(texts[name]) > 1}  # in one exercise, and maybe equal in another
    assert named == set(subject.framework_free), "remove from framework_free what no answer has"
    assert equal - unlike <= set(subject.framework_free), "add these to framework_free, so that they stay equal"


def test_find_exercise_takes_a_name_with_or_without_its_number():
    assert find_exercise("unetlike") == find_exercise("11_unetlike")
    assert find_exercise("unetlike").stem == "11_unetlike" and find_exercise("unetlike").base == "concat"
    assert find_exercise("bin_dataset").base is None
    for wrong in ("12_unetlike", "11", "UNETLIKE", "unetlik", ""):
        with pytest.raises(ValueError, match=f"^{wrong}: no such exercise: give ") as error:
            find_exercise(wrong)
        assert "\n" not in str(error.value)
        assert "unetlike" in str(error.value)
    assert (
        str(pytest.raises(ValueError, find_exercise, "13_concta").value) == "13_concta: no such exercise: give concat"
    )
    assert "segnet" not in str(pytest.raises(ValueError, find_exercise, "unetlik").value)
    with pytest.raises(ValueError, match="^newts: no such subject: give one of semaseg, digits, voc, street$"):
        find_subject("newts")


def test_paths_and_names_of_answers():
    path = ROOT / "Question_semaseg/answers/11_unetlike_keras.py"
    assert answer_path(find_exercise("unetlike"), "keras") == answer_path("11_unetlike", "keras") == path
    assert name_of(path.stem) == ("unetlike", "keras")
    assert name_of("03_grid_graph_pytorch") == ("grid_graph", "pytorch")
    for wrong in ("unetlike_keras", "11_unetlike", "11_unetlike_jax", "11_unetlike_keras.py", "11_Unet_keras"):
        with pytest.raises(ValueError, match="no name of an answer"):
            name_of(wrong)
    with pytest.raises(ValueError, match="^jax: no such framework: give pytorch, tensorflow, keras or chainer$"):
        answer_path("unetlike", "jax")


def test_what_runs_before_an_answer():
    names = ["01_street_preprocess_keras.py", "02_street_records_keras.py"]
    assert [path.name for path in list_earlier("street_train", "keras")] == names
    assert list_earlier(find_exercise("unetlike"), "keras") == list_earlier("street_preprocess", "chainer") == []


def test_load_answer_leaves_nothing_behind(tmp_path):
    before = set(sys.modules)
    for number in (1, 2):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "11_copy_pytorch.py").write_text(f"NUMBER = {number}\n")
    one, two = (load_answer(tmp_path / f"{number}" / "11_copy_pytorch.py") for number in (1, 2))
    assert (one.NUMBER, two.NUMBER) == (1, 2)
    assert set(sys.modules) == before
    assert load_answer(str(tmp_path / "1" / "11_copy_pytorch.py")).NUMBER == 1


UNET = 'name = "unet"\nsubject = "semaseg"\nnumber = 10\nfrom = "concat"\n'
MALFORMED = {
    "no TOML": ("[[subject]]", "[[subject", "not TOML in UTF-8: .* line "),
    "another table": ("[[subject]]", "[[topic]]\n[[subject]]", r"topic: write entries \[\[exercise\]\] and "),
    "unknown key": (UNET, UNET + "colour = 3\n", "exercise unet: unknown key colour: write name, "),
    "missing key": (UNET + "trains = true\n", UNET, "exercise unet: has no trains: add one"),
    "no name": (UNET, UNET.replace('name = "unet"\n', ""), "exercise number 10 in the file: has no name: add one"),
    "another type": (UNET, UNET.replace("10", '"10"'), "exercise unet: number = '10': write a value of type int"),
    "true for a number": (UNET, UNET.replace("10", "true"), "exercise unet: number = True: write a value of type int"),
    "upper case": (UNET, UNET.replace("unet", "U-Net"), "exercise U-Net: write the name in lower case"),
    "unknown subject": (UNET, UNET.replace("semaseg", "newts"), "exercise unet: subject newts has no entry"),
    "a gap": (UNET, UNET.replace("10", "13"), r"subject semaseg: numbers \[1, .*\]: write 1 to 12"),
    "a later base": (UNET, UNET.replace("concat", "segnet"), "exercise unet: from = 'segnet': name an earlier"),
    "a base elsewhere": (UNET, UNET.replace("concat", "grid_graph"), "exercise unet: from = 'grid_graph': name an "),
    "no base": (UNET, UNET.replace('from = "concat"\n', ""), "exercise unet: has no from: name the exercise"),
    "reads a later one": (
        'reads = "street_preprocess"',
        'reads = "street_test"',
        "exercise street_records: reads = 'street_test': name an earlier exercise of street",
    ),
    "a name twice": (UNET, UNET.replace("unet", "concat"), "exercise concat: stands 2 times: rename or remove one"),
    "no parameters": ("parameters = 31_045_571\n", "", "exercise unet: trains = true, so parameters are wrong: add"),
    "predicts what was not trained": (
        'from = "digits_dataset"\ntrains = false\npredicts = false',
        'from = "digits_dataset"\ntrains = false\npredicts = true',
        "exercise grid_graph: predicts without training: write",
    ),
    "no number": (
        "iterations = 300",
        "iterations = [300]",
        r"exercise unet: figure_options: iterations = \[300\]: write",
    ),
    "no names": ('"FLOAT", "COLOURS"', '"FLOAT", 1', "subject semaseg: framework_free: write names in quotes"),
    "no list": ('["nearest", "bilinear"]', '"nearest"', "exercise nearest: network_options: upsampling = 'nearest'"),
    "no text": ('["8", "4"]', "[8, 4]", r"exercise graph_conv: network_options: neighbours = \[8, 4\]"),
}


@pytest.mark.parametrize("old, new, message", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_file_is_told_in_one_line(tmp_path, old, new, message):
    text = EXERCISES.read_text("utf-8")
    assert old in text
    path = tmp_path / "exercises.toml"
    path.write_text(text.replace(old, new, 1), "utf-8")
    with pytest.raises(ValueError, match=f"^exercises.toml: {message}") as error:
        read_exercises(path)
    assert "\n" not in str(error.value)


def test_the_order_in_the_file_does_not_matter(tmp_path):
    first, *entries = EXERCISES.read_text("utf-8").split("[[exercise]]")
    path = tmp_path / "exercises.toml"
    path.write_text("[[exercise]]".join([first, *(entry + "\n" for entry in reversed(entries))]), "utf-8")
    assert read_exercises(path) == read_exercises()
