"""What every answer promises its user: each script of the ladder is run, and whatever is wrong ends in one line."""

import ast
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import (
    AKAHARA,
    ANSWERS,
    EXERCISES,
    FRAMEWORKS,
    ROOT,
    SCRIPTS,
    by_answer,
    draw,
    encode,
    find_options,
    link,
    pytorch,
    run_python,
    stopped,
    write,
    write_digits,
    write_newts,
)
from PIL import Image

WEIGHTS = {
    "pytorch": ["weights.pt"],
    "tensorflow": ["weights.data-00000-of-00001", "weights.index"],
    "keras": ["network.weights.h5"],
    "chainer": ["weights.npz"],
}
# The values that a script is run with; of what has choices and is not here, the last choice.
VALUES = {"--iterations": 3, "--batch": 2, "--lr": 0.005, "--seed": 1, "--device": "cpu", "--out": "out 出力"}
VALUES |= {"--pictures": 3, "--keep": 0.5, "--pretraining": 3, "--workers": 0, "--depth": "14"}
VALUES |= {"--shards": 4, "--flips": 50, "--every": 2, "--processes": 1, "--accumulate": 2}
VALUES |= {"--images": None, "--video": None, "--export": None}  # of street_inference: tests of its own
IMPORTS = {"cv2", "numpy", "PIL", "tqdm"}
MORE_IMPORTS = {"semaseg": set(), "digits": {"scipy", "sklearn"}, "voc": {"matplotlib"}}
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
FRAMEWORK_IMPORTS = {
    "pytorch": {"torch"},
    "tensorflow": {"tensorflow"},
    "keras": {"keras", "jax"},
    "chainer": {"chainer", "chainermn", "mpi4py"},
}
NEWTS = [name for name, exercise in EXERCISES.items() if exercise.subject == "semaseg"]
VOC = [name for name, exercise in EXERCISES.items() if exercise.subject == "voc"]
STREET = [name for name, exercise in EXERCISES.items() if exercise.subject == "street"]
TESTED = [pair for pair in ANSWERS if EXERCISES[pair[0]].predicts and pair[0] not in VOC + STREET]
FLAGS = {"--test", "--resume"}  # options without a value
by_framework = pytest.mark.parametrize("framework", FRAMEWORKS)


# ---- the files ----


def test_there_is_an_answer_to_each_exercise_and_no_other_script():
    assert sorted(ROOT.glob("Question_*/answers/*.py")) == sorted(SCRIPTS)
    assert len(NEWTS) >= 12


@by_answer
def test_an_answer_imports_its_framework_and_nothing_of_ours(exercise, framework):
    tree = ast.parse(ANSWERS[exercise, framework].read_text("utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.split(".")[0])
    allowed = IMPORTS | MORE_IMPORTS[EXERCISES[exercise].subject] | FRAMEWORK_IMPORTS[framework]
    allowed |= {"tensorflow"} if (exercise, framework) == ("street_parallel", "keras") else set()  # its strategy
    assert imported - set(sys.stdlib_module_names) <= allowed
    assert imported & FRAMEWORK_IMPORTS[framework]


def find_prelude(script):
    """Return what a script does when it is imported, beside importing and defining."""
    tree = ast.parse(script.read_text("utf-8"))
    definitions = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
    does = [node for node in tree.body[1:-1] if not isinstance(node, definitions)]  # without docstring and last block
    return {
        ast.unparse(node)
        for node in does
        if not (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "").isupper())
    }


@by_answer
def test_an_answer_prepares_the_import_of_its_framework_as_the_first_does(exercise, framework):
    """They are run in children of a process that has prepared it (forks.py), which would hide that one forgot."""
    first = find_prelude(ANSWERS["bin_dataset", framework])
    if exercise == "street_parallel":  # one of several processes says that it was interrupted; Keras has one backend
        first = {line for line in first if not re.search("interrupted|import keras|BACKEND", line)}
        assert any("interrupted" in line for line in find_prelude(ANSWERS[exercise, framework]))
    assert first <= find_prelude(ANSWERS[exercise, framework]) and (first or framework == "pytorch")


@by_answer
def test_an_answer_has_its_options_and_no_others(exercise, framework):
    entry = EXERCISES[exercise]
    options = {"--data", "--out", "--seed", "--device"}
    without = ("atrous", "deeplab", "street_preprocess", "street_records", "street_test", "street_inference")
    options |= {"--iterations", "--batch"} if exercise not in without else set()
    more = {"semaseg": {"--size", "--augment"}, "digits": {"--pictures"}, "voc": {"--size"}, "street": set()}
    options |= more[entry.subject]
    options |= {f"--{name}" for name in entry.network_options}
    trains = entry.trains or exercise == "street_parallel"
    options |= {"--lr"} if trains else set()
    kept = {"voc": {"--weights"}, "street": {"--resume"}}  # what an option is for: weights, or a training, of before
    options |= kept.get(entry.subject, {"--test"}) if trains else set()
    options |= {"--processes", "--accumulate", "--norm"} if exercise == "street_parallel" else set()
    options |= {"--weights", "--truth"} if exercise in ("street_test", "street_inference") else set()
    found = set(find_options(ANSWERS[exercise, framework]))
    assert found == options if exercise in NEWTS else found >= options
    assert "--train" not in found and ("--lr" in found) == trains
    assert ("--test" in found) == (entry.trains and exercise not in VOC + STREET)
    assert found == set(find_options(ANSWERS[exercise, "pytorch"]))


# ---- a run ----


@pytest.fixture(scope="session")
def run(tmp_path_factory, newts, digits, voc, streets, street_stages, fork):
    """Run an answer, copied alone into an empty folder, with all its options, once: (its folder, what came of it)."""
    done = {}

    def run_once(exercise, framework):
        if (exercise, framework) not in done:
            script, folder = ANSWERS[exercise, framework], tmp_path_factory.mktemp("一つ だけ")
            shutil.copy(script, folder)
            data = {"semaseg": newts, "digits": digits, "voc": voc, "street": streets}[EXERCISES[exercise].subject]
            reads = "street_records" if EXERCISES[exercise].reads == "street_train" else EXERCISES[exercise].reads
            arguments = name_values(script, street_stages.get(reads, data))
            if EXERCISES[exercise].reads == "street_train":
                trained = run_once("street_train", framework)[0] / VALUES["--out"]
                [weights] = [path for path in trained.glob("best.*") if ".data-" not in path.name]
                arguments += ["--weights", weights, "--truth", streets]
            arguments += [3, "val"] if exercise == "street_inference" else []
            done[exercise, framework] = folder, fork(folder / script.name, *arguments, cwd=folder)
        return done[exercise, framework]

    return run_once


def name_values(script, data):
    """Return every option of a script with a value that is not its default where it has another.

    Left out are those that take something of an earlier run: --test, --resume and --weights.
    """
    exercise = next(EXERCISES[name] for (name, _), path in ANSWERS.items() if path == script)
    arguments = []
    for option, choices in find_options(script).items():
        if option.strip("-") in exercise.network_options:
            arguments += [option, *exercise.network_options[option.strip("-")][-1].split()]
        elif option in VALUES and VALUES[option] is None:
            continue
        elif option.startswith("--") and option not in {*FLAGS, "--weights", "--truth"}:
            values = {option: choices[-1]} if choices else {"--size": max(exercise.test_size or 0, 32)}
            values |= VALUES | {"--data": data}
            if exercise.subject == "voc":
                values |= {"--size": 64, "--image": data / "VOCdevkit/VOC2012/JPEGImages/2007_000033.jpg"}
            arguments += [option, values[option]]
    return arguments


def list_files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read_json(path):
    return json.loads(path.read_text("utf-8"))


def read_picture(path):
    """Return a picture, (height, width, 3) uint8, red, green and blue. On Windows imread takes no name in Japanese."""
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)


VOC_FILES = dict.fromkeys(("voc_dataset", "atrous", "deeplab"), {"metrics.json", "pictures"})
VOC_FILES["deeplab_finetune"] = {"pretrained.pth", "scratch.pth", "finetuned.pth", "predictions"}
VOC_FILES["deeplab_finetune"] |= {"loss.csv", "loss_pretrained.csv", "loss_scratch.csv", "metrics.json", "pictures"}
VOC_FILES["voc_test"] = {"weights.pth", "loss.csv", "metrics.json", "pictures", "results"}
STREET_FILES = {
    "street_preprocess": {"metrics.json", "pictures", "train", "val"},
    "street_records": {
        "metrics.json",
        *(f"{split}-{i:05}-of-00004.tfrecord" for split in ("train", "val") for i in range(4)),
    },
    "street_train": {"metrics.json", "loss.csv", "validation.csv", "logs", "pictures", "predictions"},
}
STREET_FILES["street_parallel"] = STREET_FILES["street_train"]
VOC_PICTURES = {"voc_dataset": 6, "atrous": 6, "deeplab": 1, "deeplab_finetune": 3, "voc_test": 3}


@by_answer
def test_runs_alone_with_every_option_and_writes_what_it_must(run, exercise, framework):
    entry, script = EXERCISES[exercise], ANSWERS[exercise, framework]
    folder, result = run(exercise, framework)
    assert result.returncode == 0, result.stderr
    assert f"{VALUES['--out']}/" in result.stdout.splitlines()[-1]
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr
    assert {path.name for path in folder.iterdir()} == {script.name, VALUES["--out"]}
    out = folder / VALUES["--out"]
    files = list_files(out)
    assert not [file for file in files if "/." in f"/{file}"], "left over"
    tops = {file.split("/")[0] for file in files}
    metrics = read_json(out / "metrics.json")
    assert metrics["answer"] == script.stem
    if exercise in VOC:
        pictures = [file for file in files if file.startswith("pictures/")]
        assert tops == VOC_FILES[exercise] and len(pictures) == VOC_PICTURES[exercise]
        assert exercise != "deeplab" or metrics["parameters"] == EXERCISES["voc_test"].parameters
    elif exercise in STREET:
        if "loss.csv" in tops:  # it trains
            tops = {top for top in tops if not top.startswith("best.")}
        assert tops >= STREET_FILES.get(exercise, {"metrics.json", "pictures"})
        assert exercise not in STREET_FILES or tops == STREET_FILES[exercise]
    elif not entry.trains:
        assert tops == {"metrics.json", "pictures"}
        for part, number in {"train": 5 if exercise in NEWTS else 3, "test": 3}.items():
            assert exercise == "grid_graph" or metrics["images" if "digits" in exercise else "pictures"][part] == number
            assert len([file for file in files if file.startswith(f"pictures/{part}/")]) == number
    if not entry.trains:
        return
    given = {"device": "cpu", "seed": "1", "iterations": "3", "batch": "2", "lr": "0.005", "out": VALUES["--out"]}
    assert metrics["options"].items() >= given.items()
    assert {f"--{name}" for name in metrics["options"]} == set(find_options(script))
    assert exercise in VOC + STREET or set(WEIGHTS[framework]) <= tops
    with open(out / "loss.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["loss"]) == metrics["final_loss"]
    assert all(0 < float(row["loss"]) < 10 for row in rows)
    assert f"loss {metrics['final_loss']:.4f}" in result.stdout + result.stderr
    if exercise in NEWTS:
        assert sum((out / name).stat().st_size for name in WEIGHTS[framework]) > 3 * entry.parameters
        measures, folders = (
            ({"miou", "iou", "pixel_accuracy"}, {"pictures", "predictions"}) if entry.predicts else ((), ())
        )
        if not entry.predicts:
            measures = ["test_loss"]
            assert (
                0 < metrics["test_loss"] < 10 and f"loss on 3 test images {metrics['test_loss']:.4f}" in result.stdout
            )
        assert set(metrics) == {"answer", "final_loss", "options", *measures}
        assert tops == {*WEIGHTS[framework], "loss.csv", "metrics.json", *folders}
    assert ("miou" in metrics) == entry.predicts


def read_classes(picture, classes):
    """Return the index of the class at each pixel of a mask or of a prediction, whose newts may be white."""
    akahara, madara = picture[..., 0] > 100, picture[..., 1] > 100
    return np.where(akahara, 1, np.where(madara, classes.index("madara") if "madara" in classes else 1, 0))


@pytest.mark.parametrize("exercise, framework", TESTED)
def test_measures_are_those_of_the_predictions_written(run, newts, exercise, framework):
    out = run(exercise, framework)[0] / VALUES["--out"]
    metrics = read_json(out / "metrics.json")
    classes = list(metrics["iou"])
    # An answer that makes its own images writes them in folders like those of the newts.
    truths = (newts if exercise in NEWTS else out) / "test/seg_images"
    masks = {
        path.relative_to(truths).with_suffix("").as_posix().lower(): path
        for path in truths.rglob("[!.]*")
        if path.suffix.lower() == ".png"
    }
    pairs = []
    for name, path in masks.items():
        prediction, mask = read_picture(out / "predictions" / f"{name}.png"), read_picture(path)
        assert read_picture(out / "pictures" / f"{name}.png").shape[1] >= 12 * prediction.shape[1]
        # Each new pixel takes the old one under its middle.
        sides = zip(prediction.shape[:2], mask.shape[:2], strict=True)
        rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in sides)
        pairs.append((read_classes(mask[rows][:, columns], classes), read_classes(prediction, classes)))
    truth, prediction = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    assert len(pairs) == 3 and len(list_files(out / "predictions")) == len(list_files(out / "pictures")) == 3
    assert metrics["pixel_accuracy"] == pytest.approx((truth == prediction).mean())
    for index, name in enumerate(classes):
        both, either = (truth == index) & (prediction == index), (truth == index) | (prediction == index)
        assert metrics["iou"][name] == (pytest.approx(both.sum() / either.sum()) if either.any() else None)
    known = [value for value in metrics["iou"].values() if value is not None]
    assert metrics["miou"] == pytest.approx(np.mean(known))


@by_framework
def test_a_plain_run_takes_the_bundled_newts_and_the_seed_decides_it(fork, tmp_path, framework):
    """From a shell with no data and no folder named; and again, where each seed gives the same bytes."""
    script, numbers = ANSWERS["bin_loss", framework], ["--iterations", 4, "--batch", 4, "--size", 16]
    result = run_python(script, *numbers, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    out = tmp_path / "outputs" / script.stem
    assert read_json(out / "metrics.json")["options"]["data"] == str(ROOT / "Dataset")
    for seed in (0, 1):
        again = fork(script, *numbers, "--seed", seed, "--out", f"seed {seed}", cwd=tmp_path)
        assert again.returncode == 0, again.stderr
    losses, same, other = ((folder / "loss.csv").read_bytes() for folder in (out, *sorted(tmp_path.glob("seed *"))))
    assert losses.count(b"\n") == 5 and losses == same
    assert all(one != two for one, two in zip(same.splitlines()[1:], other.splitlines()[1:], strict=True))


# ---- wrong options ----


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_wrong_option_is_told_with_what_it_may_be(exercise, monkeypatch, capsys):
    answer, options = pytorch(exercise), find_options(ANSWERS[exercise, "pytorch"])
    wrong = {("--epochs", "3"): "--epochs", ("--train",): "--train", ("--device", "cuda"): "--device cuda: "}
    wrong |= {("--device", "gpu"): "auto"}
    for name, (default, allowed, _) in answer.NUMBERS.items():
        assert default in allowed
        below, above = allowed.start - allowed.step, allowed[-1] + allowed.step
        for number in (below, above, *([allowed.start + 1] if allowed.step > 1 else [])):
            wrong[f"--{name}", str(number)] = f"--{name} {number}: give {allowed.start} to {allowed[-1]}"
        wrong[f"--{name}", "two"] = f"--{name}"
        for number in (allowed.start, allowed[-1]):
            more = {"processes": ["--batch", "4096"], "accumulate": ["--batch", "4096", "--processes", "1"]}.get(
                name, []
            )
            monkeypatch.setattr("sys.argv", ["answer", f"--{name}", str(number), *more])
            assert vars(answer.read_options())[name] == number
    for value in ("0", "-1", "nan", "inf") if "--lr" in options else ():
        wrong["--lr", value] = f"--lr {float(value)}: give a number above 0"
    for arguments, told in wrong.items():
        monkeypatch.setattr("sys.argv", ["answer", *arguments])
        if hasattr(answer, "Stopped"):  # which is told at the end of the file
            with pytest.raises(answer.Stopped) as end:
                answer.read_options()
            assert told in str(end.value)
        else:
            line = stopped(capsys, answer.read_options)
            assert line.startswith(f"{ANSWERS[exercise, 'pytorch'].name}: ") and told in line


@pytest.mark.parametrize("exercise, sizes", {"nearest": 2, "concat": 8, "unetlike": 16, "segnet": 32}.items())
def test_sizes_are_those_that_the_poolings_halve_without_a_rest(exercise, sizes):
    assert set(pytorch(exercise).NUMBERS["size"][1]) <= set(range(0, 4096, sizes))


def is_one_line(result, script, *named, status=2):
    """Whether a script ended with this status and with one line, beside its progress bars, that names these."""
    lines = [line for line in result.stderr.splitlines() if line.strip() and "%|" not in line]
    assert result.returncode == status and "Traceback" not in result.stderr, result.stderr
    assert len(lines) == 1 and lines[0].startswith(f"{script.name}: "), result.stderr
    return all(name in lines[0] for name in named) or pytest.fail(lines[0])


@by_answer
def test_each_script_tells_of_a_wrong_option_before_anything_else(fork, tmp_path, exercise, framework):
    script = ANSWERS[exercise, framework]
    assert is_one_line(fork(script, "--seed", -1, cwd=tmp_path), script, "--seed -1: give 0 to ")
    assert not list(tmp_path.iterdir())


# ---- wrong data: the function that reads is the same in all frameworks ----


def no_such_folder(folder):
    shutil.rmtree(folder)
    return f"{str(folder / 'images')!r}: --data takes a folder with train/ and test/"


def no_images(folder):
    shutil.rmtree(folder / "images")
    write(folder / "images/notes.txt", b"")
    return f"{folder / 'images'}: no .jpg or .png file here"


def image_without_mask(folder):
    (folder / "seg_images/akahara/grey.png").unlink()
    return "grey.jpeg: has no mask in seg_images/: add akahara/grey.png there"


def mask_without_image(folder):
    (folder / "images/akahara/grey.jpeg").unlink()
    return "grey.png: has no image in images/: add akahara/grey.png there"


def image_of_another_kind(folder):
    (folder / "images/akahara/grey.jpeg").rename(folder / "images/akahara/Grey.bmp")
    return "grey.png: has no image in images/, but Grey.bmp: add akahara/grey.png there"


def no_image_at_all(folder):
    write(folder / "images/akahara/grey.jpeg", b"a text, by name an image\n")
    return "grey.jpeg: "


def cut_off(folder):
    path = folder / "images/Madara/TWO.JPG"
    write(path, path.read_bytes()[:-200])
    return "TWO.JPG: "


def cut_off_png(folder):
    path = folder / "seg_images/akahara/grey.png"
    write(path, path.read_bytes()[:-40])
    return "grey.png: "


def other_size(folder):
    write(folder / "seg_images/akahara/grey.png", encode(".png", draw(64, 65, AKAHARA)[1]))
    return "grey.png: is (64, 65) in size, its image, turned upright as its EXIF says, (64, 64)"


def turned_image(folder):
    """A mask drawn on the image as it is stored, which its camera noted to have been held otherwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(folder / "images/akahara/one 一.jpg", exif=exif)
    return "one 一.png: is (40, 60) in size, its image, turned upright as its EXIF says, (60, 40)"


def jpeg_mask(folder):
    path = folder / "seg_images/akahara/grey.png"
    path.unlink()
    write(path.with_suffix(".jpg"), encode(".jpg", draw(64, 64, AKAHARA)[1]))
    return "grey.jpg: unknown colours (R, G, B, alpha) [["


def unknown_colour(folder):
    mask = draw(64, 64, AKAHARA)[1]
    mask[5, 5] = (126, 0, 0)
    write(folder / "seg_images/akahara/grey.png", encode(".png", mask))
    return "grey.png: unknown colours (R, G, B, alpha) [[126, 0, 0, 255]]: paint background (0, 0, 0), akahara"


def transparent_mask(folder):
    """Where it is erased a mask may keep the colour of what stood there."""
    alpha = np.where(np.arange(64) < 60, 255, 0).astype(np.uint8)[None, :, None].repeat(64, axis=0)
    write(folder / "seg_images/akahara/grey.png", encode(".png", np.dstack([draw(64, 64, AKAHARA)[1], alpha])))
    return "grey.png: unknown colours (R, G, B, alpha) [[0, 0, 0, 0]]"


def mask_of_16_bits(folder):
    mask = np.uint16(draw(64, 64, AKAHARA)[1])[..., ::-1]
    write(folder / "seg_images/akahara/grey.png", cv2.imencode(".png", mask)[1].tobytes())
    return "grey.png: it has more than 8 bits per channel"


def grey_of_16_bits(folder):
    write(folder / "images/akahara/grey.jpeg", cv2.imencode(".png", np.full((64, 64), 9000, np.uint16))[1].tobytes())
    return "grey.jpeg: it has more than 8 bits per channel"


def linked_in_a_circle(folder):
    link(folder / "images/akahara/again", folder / "images")
    return f"{folder / 'images'}: links in it lead to the same image twice: remove one"


def transparent_image(folder):
    """Where it is erased an image keeps colours that nobody sees."""
    (folder / "images/akahara/grey.jpeg").unlink()
    pixels = np.dstack([draw(64, 64, AKAHARA)[0], np.full((64, 64), 255, np.uint8)])
    pixels[:8, :, 3] = 0
    write(folder / "images/akahara/grey.png", encode(".png", pixels))
    return "grey.png: has transparent pixels, whose colours nobody has seen"


def images_of_another_kind_alone(folder):
    shutil.rmtree(folder / "images")
    write(folder / "images/one.bmp", b"")
    return f"{folder / 'images'}: no .jpg or .png file here, but {folder / 'images/one.bmp'}: --data takes"


def same_name(folder):
    write(folder / "images/akahara/Grey.png", encode(".png", draw(64, 64, AKAHARA)[0]))
    first = "grey.jpeg" if os.name == "nt" else "Grey.png"  # Windows sorts capitals among the small letters
    return f"has the same name as {first}: rename one"


WRONG_DATA = (no_such_folder, no_images, image_without_mask, mask_without_image, no_image_at_all, cut_off, cut_off_png)
WRONG_DATA += (other_size, turned_image, jpeg_mask, unknown_colour, transparent_mask, mask_of_16_bits, grey_of_16_bits)
WRONG_DATA += (same_name, linked_in_a_circle, image_of_another_kind, transparent_image, images_of_another_kind_alone)


@pytest.mark.parametrize("exercise", ["bin_dataset", "semaseg_test", "unet"])
@pytest.mark.parametrize("spoil", WRONG_DATA, ids=lambda spoil: spoil.__name__)
def test_wrong_data_are_told_in_one_line(tmp_path, capsys, exercise, spoil):
    folder = write_newts(tmp_path / "いもり の data") / "train"
    told = spoil(folder)
    line = stopped(capsys, pytorch(exercise).load_newts, folder, 204)
    assert line.startswith(f"{ANSWERS[exercise, 'pytorch'].name}: ") and told in line


def test_names_that_a_mac_decomposed_and_linked_folders_are_found(tmp_path):
    name = "ポスト"
    decomposed = unicodedata.normalize("NFD", name)
    assert decomposed != name
    image, mask = draw(16, 16, AKAHARA)
    write(tmp_path / "elsewhere" / f"{decomposed}.png", encode(".png", image))
    write(tmp_path / "data/seg_images/いもり" / f"{name}.png", encode(".png", mask))
    (tmp_path / "data/images").mkdir()
    link(tmp_path / "data/images/いもり", tmp_path / "elsewhere")
    names, _, _ = pytorch("bin_test").load_newts(tmp_path / "data", 16)
    assert names == [f"いもり/{name}"]


def test_files_that_are_passed_over_are_told(tmp_path, capsys):
    folder = write_newts(tmp_path / "data") / "train"
    for name in ("images/notes.bmp", "images/akahara/one.heic", "images/.hidden/a.txt", "images/labelme.json"):
        write(folder / name, b"")
    names, _, _ = pytorch("bin_test").load_newts(folder, 16)
    told = capsys.readouterr()
    assert len(names) == 5 and told.out.count("\n") == 1 and not told.err
    assert told.out.startswith("passed over, being neither .jpg nor .png: ") and "one.heic and 2 more" in told.out


def test_a_folder_that_may_not_be_read_is_told(tmp_path, capsys, monkeypatch):
    folder, scandir = write_newts(tmp_path / "data") / "train", os.scandir

    def refuse(path):
        if Path(path).name == "akahara":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may read every folder
    line = stopped(capsys, pytorch("bin_test").load_newts, folder, 16)
    assert "Permission denied" in line and "akahara" in line and "that you may read" in line


def test_names_in_letters_that_the_terminal_lacks(fork, tmp_path, newts):
    script = ANSWERS["bin_test", "pytorch"]
    numbers = ["--iterations", 1, "--batch", 2, "--size", 16]
    ascii_only = "import sys; sys.stdout.reconfigure(encoding='ascii', errors='strict')"
    result = fork(script, "--data", newts, *numbers, "--out", "出力", cwd=tmp_path, before=ascii_only)
    assert result.returncode == 0, result.stderr
    assert "All is in \\u51fa\\u529b/" in result.stdout and (tmp_path / "出力/metrics.json").exists()


@pytest.mark.parametrize("exercise", ["bin_dataset", "bin_loss", "bin_test"])
def test_nothing_is_written_where_the_data_are_wrong(fork, tmp_path, exercise):
    """Among the test images too, before minutes of training."""
    folder, script = write_newts(tmp_path / "data"), ANSWERS[exercise, "pytorch"]
    told = jpeg_mask(folder / "test")
    result = fork(script, "--data", folder, "--out", "out", "--iterations", 1, cwd=tmp_path)
    assert is_one_line(result, script, told)
    assert exercise == "bin_dataset" or {path.name for path in tmp_path.iterdir()} == {"data"}


def no_such_file(path):
    path.unlink()
    return f"{path}: no such file: make one with python Dataset/download_digits.py"


def cut_off_file(path):
    path.write_bytes(path.read_bytes()[:-100])
    return f"{path}: not a whole .npz file"


def pickled(path):
    """A pickle may name any function to be called when it is read."""
    np.savez(path, digits=np.array([{}]), photographs=np.array([{}]))
    return f"{path}: not a whole .npz file"


def one_digit(path):
    with np.load(path) as file:
        np.savez(path, digits=file["digits"][:1], photographs=file["photographs"])
    return f"{path}: digits (1, 28, 28) uint8: give uint8, of the shape (2, 1, 1) or larger"


def small_photographs(path):
    with np.load(path) as file:
        np.savez(path, digits=file["digits"], photographs=file["photographs"][:, :31])
    return f"{path}: photographs (8, 31, 32, 3) uint8: "


WRONG_DIGITS = (no_such_file, cut_off_file, pickled, one_digit, small_photographs)


@pytest.mark.parametrize("spoil", WRONG_DIGITS, ids=lambda spoil: spoil.__name__)
def test_wrong_digits_are_told_in_one_line(tmp_path, capsys, spoil):
    path = write_digits(tmp_path / "digits.npz")
    told = spoil(path)
    assert f": --data {told}" in stopped(capsys, pytorch("digits_dataset").read_data, path)


# ---- what goes wrong later, in each framework ----


@pytest.fixture
def attempt(fork, newts, tmp_path):
    """Run an answer to an exercise with these options more, in tmp_path; return (its path, what came of it)."""

    def run(exercise, framework, *arguments, before=""):
        script = ANSWERS[exercise, framework]
        right = ["--data", newts, "--iterations", 3, "--batch", 2, "--size", 32, "--device", "cpu", "--out", "out"]
        return script, fork(script, *right, *arguments, cwd=tmp_path, before=before)

    return run


@by_framework
def test_a_gpu_that_is_not_there_is_told(attempt, framework):
    script, result = attempt("concat", framework, "--device", "cuda")
    assert is_one_line(result, script, "--device cuda: ", "no GPU", "use --device cpu")


@by_framework
def test_a_learning_rate_that_is_far_too_high_is_told(attempt, tmp_path, framework):
    script, result = attempt("concat", framework, "--lr", "1e30", "--iterations", 20)
    assert is_one_line(result, script, "--lr 1e+30: the loss is ", "try a smaller one")
    assert not list_files(tmp_path)


CTRL_C = """
import os, signal, threading, time

def interrupt():
    while b"train:  " not in open(err, "rb").read():
        time.sleep(0.01)
    if os.name == "nt":  # where os.kill would end the process
        signal.raise_signal(signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
"""


@by_framework
def test_ctrl_c_ends_in_one_line(attempt, tmp_path, framework):
    script, result = attempt("concat", framework, "--iterations", 100_000, before=CTRL_C)
    assert is_one_line(result, script, "interrupted", status=1)
    assert not list_files(tmp_path)


@by_framework
def test_ctrl_c_during_the_imports_ends_in_one_line(tmp_path, framework):
    """A stand-in for a library sends it while it is imported."""
    lines = b"import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(20)\n"
    write(tmp_path / "cv2.py", lines)
    script = ANSWERS["bin_loss", framework]
    result = run_python(script, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert is_one_line(result, script, "interrupted", status=1)


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows sets no limit to the size of a file")
@by_framework
def test_a_full_disk_is_told(attempt, tmp_path, framework):
    """A file that may not grow is as on a full disk, but for the name of the error."""
    script, result = attempt("concat", framework, before=FULL)
    place = "TMPDIR" if framework == "tensorflow" else os.path.join("out", WEIGHTS[framework][-1])
    assert is_one_line(result, script, place, "another folder")
    assert not list_files(tmp_path)


MEMORY = """
import resource
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 700 * 2**20,) * 2)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux holds a process to such a limit")
@pytest.mark.parametrize("framework", ["pytorch", "chainer"])  # TensorFlow does not live to tell of such a limit
def test_memory_that_runs_out_is_told(attempt, tmp_path, framework):
    script, result = attempt("concat", framework, "--batch", 16, "--size", 512, before=MEMORY)
    assert is_one_line(result, script, "out of memory: give a smaller --batch or --size")
    assert not list_files(tmp_path)


@by_framework
def test_an_out_that_cannot_be_written_is_told(attempt, tmp_path, framework):
    write(tmp_path / "a file", b"")
    for out in ("a file", "a file/out"):
        script, result = attempt("concat", framework, "--out", out)
        assert is_one_line(result, script, "a file", "another folder")
    assert list_files(tmp_path) == ["a file"]


# ---- testing with saved weights ----


@by_framework
def test_testing_with_saved_weights(run, attempt, tmp_path, framework):
    """--test alone gives what one go gave, and keeps what training told, in a folder of whatever name."""
    first, out = run("bin_test", framework)[0] / VALUES["--out"], tmp_path / "exp[1] 出力"
    shutil.copytree(first, out)
    shutil.rmtree(out / "predictions")
    _, result = attempt("bin_test", framework, "--test", "--out", out.name)
    assert result.returncode == 0, result.stderr
    assert list_files(out) == list_files(first)
    assert read_json(out / "metrics.json") == read_json(first / "metrics.json")
    for path in (first / "predictions").rglob("*.png"):
        assert (out / path.relative_to(first)).read_bytes() == path.read_bytes()
    script, result = attempt("bin_test", framework, "--test", "--out", out.name, "--size", 64)
    assert is_one_line(result, script, "--size 64: the weights in", "were trained with 32: give the same")


@pytest.mark.parametrize("exercise", ["bin_test", "digits_cnn"])
@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"options": null}', '{"options": 3}', '{"answer": "01_bin_dataset']
)
def test_metrics_that_training_did_not_write_are_told(tmp_path, capsys, exercise, content):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    line = stopped(capsys, pytorch(exercise).read_metrics, path)
    assert f"{path}: not what training writes" in line
    path.unlink()
    assert pytorch(exercise).read_metrics(path) == {"options": {}}


def test_another_run_into_the_same_folder_is_noticed(attempt, tmp_path):
    """It writes while this one tests: the numbers would belong to other weights."""
    other = """
import json
measure = json.dumps
def dumps(metrics, **options):
    if "miou" in metrics:
        raise SystemExit("written over")
    return measure(metrics, **options)
import PIL.Image
save = PIL.Image.Image.save
def write_over(image, path, *arguments):
    open("out/metrics.json", "w").write("{}")
    return save(image, path, *arguments)
PIL.Image.Image.save = write_over
json.dumps = dumps
"""
    script, result = attempt("bin_test", "pytorch", before=other)
    assert is_one_line(result, script, "metrics.json: another run has written there meanwhile")
    assert (tmp_path / "out/metrics.json").read_text() == "{}"


def test_images_of_earlier_runs_are_told(attempt, tmp_path):
    _, first = attempt("bin_test", "pytorch")
    assert first.stdout.splitlines()[-1] == "All is in out/"
    (tmp_path / "out/pictures/old.png").write_bytes(b"")
    (tmp_path / "out/pictures/.part-1-old.png").write_bytes(b"")
    _, again = attempt("bin_test", "pytorch", "--test")
    assert again.stdout.splitlines()[-1] == "All is in out/; 1 images in pictures/ are of earlier runs"


@by_framework
def test_a_batch_of_which_batch_norm_sees_one_value_is_refused(attempt, tmp_path, framework):
    """PyTorch would raise, and a variance by N - 1 divide by 0."""
    script, result = attempt("unetlike", framework, "--batch", 1, "--size", 16)
    assert is_one_line(result, script, "--batch 1: ", "give a larger one")
    _, result = attempt("unetlike", framework, "--batch", 1, "--size", 32, "--iterations", 1)
    assert result.returncode == 0, result.stderr
    assert np.isfinite(read_json(tmp_path / "out/metrics.json")["miou"])


def test_an_answer_runs_in_a_folder_right_below_the_root(monkeypatch, capsys):
    answer = pytorch("bin_test")
    monkeypatch.setattr(answer, "__file__", os.path.abspath("/app/03_bin_test_pytorch.py"))
    monkeypatch.setattr(sys, "argv", ["03_bin_test_pytorch.py", "--device", "cpu"])
    assert answer.read_options().data == Path(os.path.abspath("/Dataset"))


# The weights of one network given to another: the last layer is smaller, a layer is too many, a layer is missing.
OTHERS = [("semaseg_test", "bin_test"), ("concat", "transposeconv"), ("transposeconv", "concat")]


def options_as_trained(out):
    """Return the options that change the network, as the run in a folder had them."""
    options = read_json(out / "metrics.json")["options"]
    return ["--poolings", options["poolings"]] if "poolings" in options else []


@by_framework
def test_weights_that_are_not_its_own_are_told(run, attempt, tmp_path, framework):
    out, path = tmp_path / "out", str(tmp_path / "out" / WEIGHTS[framework][-1])
    for written, tested in OTHERS:
        shutil.copytree(run(written, framework)[0] / VALUES["--out"], out, dirs_exist_ok=True)
        script, result = attempt(tested, framework, "--test", "--out", out, *options_as_trained(out))
        assert is_one_line(result, script, f"{path}: not the weights of this network: train first")
    for name in WEIGHTS[framework]:
        data = (out / name).read_bytes()
        for place in (0, len(data) // 2, len(data) - 30):
            (out / name).write_bytes(data[:place])
            script, result = attempt(OTHERS[-1][0], framework, "--test", "--out", out, *options_as_trained(out))
            assert is_one_line(result, script, f"{path}: not the weights of this network: train first")
        (out / name).write_bytes(data)
    _, result = attempt(OTHERS[-1][0], framework, "--test", "--out", out, *options_as_trained(out))
    assert result.returncode == 0, result.stderr
    (out / WEIGHTS[framework][-1]).unlink()
    for name, options in ((out, options_as_trained(out)), ("never written", [])):
        script, result = attempt(OTHERS[-1][0], framework, "--test", "--out", name, *options)
        assert is_one_line(result, script, f"{WEIGHTS[framework][-1]}: no such file: train first")
    assert not (tmp_path / "never written").exists()


# ---- files are whole or absent ----


# Runs in a process of its own, which forks a child for each run, so that PyTorch is imported once.
KILL = """
import json, os, resource, signal, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from exercises import load_answer
script, data, out = map(Path, sys.argv[2:5])
answer = load_answer(script)
answer.torch.set_num_threads(1)
# tqdm's own lock is shared with the children: one that is killed while it holds it would stop all that follow.
answer.tqdm.monitor_interval = 0
answer.tqdm.set_lock(threading.RLock())
numbers = ["--iterations", "3", "--batch", "2", "--size", "16", "--device", "cpu"]
sys.argv = [script.name, "--data", str(data), "--out", str(out), *numbers]
null = os.open(os.devnull, os.O_WRONLY)
stdout, stderr = os.dup(1), os.dup(2)
os.dup2(null, 1), os.dup2(null, 2)
answer.main()  # once here, so that all is imported, in one thread, since a thread would not outlive the fork
sys.stdout.flush()
os.dup2(stdout, 1), os.dup2(stderr, 2)


def run(last):
    # Return how many files below out were opened for writing, or renamed: all, or until it is killed at the last one.
    child = os.fork()
    if not child:
        os.dup2(null, 1), os.dup2(null, 2)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        seen = 0

        def watch(event, arguments):
            nonlocal seen
            if event not in ("open", "os.rename") or not str(arguments[0]).startswith(str(out)):
                return
            if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
                return
            seen += 1
            if seen == last and event == "open":  # the system kills it after the first 10 bytes of the file
                resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
            elif seen == last:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        answer.main()
        os._exit(min(seen, 255))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


total = run(0)
print(json.dumps(total), flush=True)
for last in range(1, total + 1):
    print(json.dumps(run(last)), flush=True)
    sys.stdin.readline()
"""


def find_damage(out):
    """Return the files in a folder of results that are not whole, and whether any lies there half-written."""
    torch = pytorch("bin_test").torch
    damaged, leftover = [], False
    for path in (path for path in out.rglob("*") if path.is_file()):
        if path.name.startswith(".part-"):
            leftover = True
            continue
        data = path.read_bytes()
        try:
            if path.suffix == ".png":
                whole = data[-12:] == b"\0\0\0\0IEND\xaeB`\x82" and read_picture(path) is not None
            elif path.suffix == ".json":
                whole = "final_loss" in json.loads(data)
            elif path.suffix == ".csv":
                whole = data.endswith(b"\n") and len(data.splitlines()) == 4
            else:
                whole = len(torch.load(path, weights_only=True)) > 10
        except Exception as error:
            whole = False
            print(path, error)
        if not whole:
            damaged.append(path.name)
    return damaged, leftover


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has computed, which macOS does not allow")
def test_killed_while_writing_leaves_every_file_whole_or_absent(tmp_path, newts):
    """Killed in the middle of each file, and before each is renamed; half the time over old results."""
    script, out = ANSWERS["bin_test", "pytorch"], tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", KILL, ROOT / "tools", script, newts, out],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    killed, left = [], 0
    with process:
        total = json.loads(process.stdout.readline())
        for number in range(total):
            killed.append(json.loads(process.stdout.readline()))
            damaged, leftover = find_damage(out)
            assert damaged == []
            left += leftover
            if number % 2:
                shutil.rmtree(out)
            process.stdin.write("on\n")
            process.stdin.flush()
    assert process.returncode == 0
    # weights, loss.csv, metrics.json twice, and two images for each of 3 test newts: each is opened, and renamed.
    assert total >= 2 * (4 + 2 * 3)
    assert all(status < 0 for status in killed) and left > total / 2


# Runs in a process of its own: one checkpoint over another, the script killed before each of its steps.
MIXED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from exercises import load_answer
answer, out = load_answer(sys.argv[2]), Path("out")
sys.argv = ["answer", "--device", "cpu"]
options = answer.read_options()
old, new, read = (answer.build_network(answer.np.random.default_rng(seed), options) for seed in (0, 1, 2))
first = lambda network: network.blocks[0].conv.kernel.numpy().tolist()
out.mkdir()


class Killed(BaseException):
    pass


def count(function):
    def counted(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            raise Killed
        return function(*arguments, **options)
    return counted


def load():
    try:
        answer.load_weights(read, out)
        return "old" if first(read) == first(old) else "new" if first(read) == first(new) else "mixed"
    except SystemExit as end:
        return f"stopped {end.code}"


Path.replace, Path.unlink = count(Path.replace), count(Path.unlink)
for steps in range(7):
    left = 100
    answer.save_weights(old, out)
    left = steps
    try:
        answer.save_weights(new, out)
        ended = "ended"
    except Killed:
        ended = "killed"
    print(ended, load())
left = 100
answer.save_weights(old, out)
data = out / "weights.data-00000-of-00001"
numbers = data.read_bytes()
answer.save_weights(new, out)
data.write_bytes(numbers)
print("old data with a new index", load())
"""


def test_a_checkpoint_of_two_files_is_never_mixed(tmp_path):
    """TensorFlow writes data and an index: killed between the two, an answer has the old, the new, or says so."""
    result = run_python("-c", MIXED, ROOT / "tools", ANSWERS["bin_test", "tensorflow"], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    *kills, last = result.stdout.splitlines()
    assert kills == ["killed old", *["killed stopped 2"] * 3, "killed new", "ended new", "ended new"]
    assert last == "old data with a new index stopped 2"
