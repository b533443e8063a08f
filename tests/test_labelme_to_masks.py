"""Dataset/labelme_to_masks.py: drawn shapes become masks of exact colours; one wrong file, and nothing is written."""

import base64
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import link

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "Dataset"))
import labelme_to_masks

BLACK, AKAHARA, MADARA = (0, 0, 0), (127, 0, 0), (0, 127, 0)
HEIGHT, WIDTH = 40, 60


@pytest.fixture
def newts(tmp_path):
    """A folder my_newts with one labelled picture, train/images/a_good.png, that comes first of all."""
    add_picture(tmp_path / "my_newts/train/images/a_good.png", [shape("rectangle", [[1, 1], [5, 5]])])
    return tmp_path / "my_newts"


def shape(shape_type, points, label="akahara", mask=None):
    """One shape, with the keys that labelme 6.3.1 writes."""
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": shape_type,
        "flags": {},
        "mask": mask,
    }


def png(pixels):
    return base64.b64encode(cv2.imencode(".png", np.array(pixels, np.uint8))[1].tobytes()).decode()


def add_picture(path, shapes, height=HEIGHT, width=WIDTH):
    """Write a black picture of 60 x 40 pixels, and beside it the JSON of the shapes, as labelme 6.3.1 writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes())
    saved = {
        "version": "6.3.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": path.name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    path.with_suffix(".json").write_text(json.dumps(saved, indent=2), encoding="utf-8")


def read_mask(path):
    """The mask's pixels, (height, width, 3) red, green and blue."""
    assert path.read_bytes().startswith(b"\x89PNG")
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def colour_at(mask, x, y):
    return tuple(mask[y, x].tolist())


def convert_one(newts, *shapes):
    """Label one picture with the shapes and return its mask."""
    add_picture(newts / "train/images/newt.png", list(shapes))
    assert labelme_to_masks.main([str(newts)]) == 0
    return read_mask(newts / "train/seg_images/newt.png")


def fail(newts, capsys):
    """Run main, which must fail in one line on stderr with status 2 and write nothing; return that line."""
    before = {path: path.is_file() and path.read_bytes() for path in newts.rglob("*")}
    assert labelme_to_masks.main([str(newts)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("labelme_to_masks.py: ")
    assert captured.err.count("\n") == 1
    assert {path: path.is_file() and path.read_bytes() for path in newts.rglob("*")} == before
    return captured.err


def test_masks_lie_under_the_names_of_the_pictures(newts, capsys):
    add_picture(newts / "train/images/pond/newt.v2.JPG", [shape("rectangle", [[1, 1], [5, 5]], "madara")])
    add_picture(newts / "test/images/いもり.jpeg", [])
    assert labelme_to_masks.main([str(newts)]) == 0
    masks = sorted(path.relative_to(newts).as_posix() for path in newts.rglob("seg_images/**/*") if path.is_file())
    assert masks == ["test/seg_images/いもり.png", "train/seg_images/a_good.png", "train/seg_images/pond/newt.v2.png"]
    output = capsys.readouterr().out
    assert output.startswith("3 masks") and f"--data {newts}" in output


def test_a_polygon_in_exact_colours(newts):
    mask = convert_one(newts, shape("polygon", [[10.4, 5.2], [49.9, 5.9], [49.1, 29.5], [10.9, 29.9]]))
    assert mask.shape == (HEIGHT, WIDTH, 3) and mask.dtype == np.uint8
    expected = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    expected[5:30, 10:50] = AKAHARA
    np.testing.assert_array_equal(mask, expected)


def test_a_polygon_is_hollow_where_it_bends_in(newts):
    mask = convert_one(newts, shape("polygon", [[10, 5], [50, 5], [50, 30], [30, 10], [10, 30]], "madara"))
    assert colour_at(mask, 30, 25) == BLACK
    assert colour_at(mask, 13, 20) == colour_at(mask, 47, 20) == MADARA


@pytest.mark.parametrize("points", [[[10, 5], [20, 15]], [[20, 15], [10, 5]], [[10, 15], [20, 5]]])
def test_a_rectangle_from_any_two_corners(newts, points):
    mask = convert_one(newts, shape("rectangle", points))
    assert np.argwhere(mask[..., 0]).min(axis=0).tolist() == [5, 10]
    assert np.argwhere(mask[..., 0]).max(axis=0).tolist() == [15, 20]
    assert np.count_nonzero(mask) == 121


def test_a_circle(newts):
    mask = convert_one(newts, shape("circle", [[30.5, 20.5], [40.5, 20.5]], "madara"))
    rows, columns = np.nonzero(mask[..., 1])
    assert np.hypot(rows - 20, columns - 30).max() <= 10.5
    assert len(rows) == pytest.approx(np.pi * 10**2, rel=0.05)


def test_a_rectangle_that_leans(newts):
    mask = convert_one(newts, shape("oriented_rectangle", [[30, 5], [45, 20], [30, 35], [15, 20]]))
    assert colour_at(mask, 30, 20) == AKAHARA
    assert colour_at(mask, 17, 7) == BLACK


def test_a_mask(newts):
    drawn = [[1, 0, 1], [0, 1, 1]]
    mask = convert_one(newts, shape("mask", [[10, 5], [12, 6]], "madara", png(drawn)))
    assert (mask[5:7, 10:13, 1] == np.array(drawn) * 127).all()
    assert np.count_nonzero(mask) == 4


def test_later_shapes_lie_over_earlier_ones(newts):
    below, above = shape("rectangle", [[0, 0], [30, 30]]), shape("rectangle", [[20, 0], [40, 30]], "madara")
    mask = convert_one(newts, below, above)
    assert colour_at(mask, 10, 10) == AKAHARA and colour_at(mask, 25, 10) == MADARA
    mask = convert_one(newts, above, below)
    assert colour_at(mask, 25, 10) == AKAHARA


def test_shapes_may_leave_the_picture(newts):
    mask = convert_one(newts, shape("polygon", [[-20, -20], [200, -20], [200, 200], [-20, 200]]))
    assert (mask == AKAHARA).all()


def test_a_picture_turned_by_its_camera(newts):
    path = newts / "train/images/turned.jpg"
    add_picture(path, [shape("rectangle", [[1, 41], [5, 55]])], height=WIDTH, width=HEIGHT)
    # One EXIF entry, orientation 6: to be shown a quarter turn clockwise.
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    jpeg = path.read_bytes()
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:])
    assert labelme_to_masks.main([str(newts)]) == 0
    mask = read_mask(newts / "train/seg_images/turned.png")
    assert mask.shape == (WIDTH, HEIGHT, 3)
    assert colour_at(mask, 3, 50) == AKAHARA


def test_a_second_run_follows_a_changed_label(newts):
    convert_one(newts, shape("rectangle", [[1, 1], [5, 5]]))
    assert colour_at(convert_one(newts, shape("rectangle", [[1, 1], [5, 5]], "madara")), 3, 3) == MADARA


def test_a_picture_that_has_a_mask_already_needs_no_json(newts):
    convert_one(newts, shape("rectangle", [[1, 1], [5, 5]]))
    (newts / "train/images/newt.json").unlink()
    assert labelme_to_masks.main([str(newts)]) == 0
    assert (newts / "train/seg_images/newt.png").exists()


BROKEN_SHAPES = {
    "unknown label": (shape("polygon", [[1, 1], [9, 1], [9, 9]], "Akahara"), "'Akahara'"),
    "label of another kind": (shape("polygon", [[1, 1], [9, 1], [9, 9]], ["akahara"]), "unknown label"),
    "line": (shape("line", [[1, 1], [9, 9]]), "'line'"),
    "points": (shape("points", [[1, 1]]), "'points'"),
    "two corners": (shape("polygon", [[1, 1], [9, 9]]), "broken polygon"),
    "one corner": (shape("rectangle", [[1, 1]]), "broken rectangle"),
    "ragged points": (shape("polygon", [[1, 1], [9], [9, 9]]), "broken polygon"),
    "points that are text": (shape("polygon", [["a", 1], [9, 1], [9, 9]]), "broken polygon"),
    "no points": (shape("polygon", None), "broken polygon"),
    "not a number": (shape("polygon", [[float("nan"), 1], [9, 1], [9, 9]]), "broken polygon"),
    "endless": (shape("circle", [[1, 1], [float("inf"), 1]]), "broken circle"),
    "mask of another size": (shape("mask", [[1, 1], [2, 2]], mask=png([[1, 1, 1]])), "broken mask"),
    "mask left of the picture": (shape("mask", [[-3, 1], [-2, 1]], mask=png([[1, 1]])), "broken mask"),
    "mask right of the picture": (shape("mask", [[59, 1], [60, 1]], mask=png([[1, 1]])), "broken mask"),
    "mask that is no PNG": (shape("mask", [[1, 1], [2, 2]], mask="bmV3dA=="), "broken mask"),
    "mask that is empty": (shape("mask", [[1, 1], [2, 2]], mask=""), "broken mask"),
    "mask that is absent": (shape("mask", [[1, 1], [2, 2]]), "broken mask"),
}


@pytest.mark.parametrize("case", BROKEN_SHAPES)
def test_a_shape_that_has_no_place_in_a_mask(newts, capsys, case):
    broken, words = BROKEN_SHAPES[case]
    add_picture(newts / "train/images/newt.png", [shape("rectangle", [[1, 1], [5, 5]]), broken])
    line = fail(newts, capsys)
    assert "newt.json, shape 2 of 2" in line and words in line


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"\x80", b'{"imageHeight": 1, "imageWidth": 1, "shapes":1}'])
def test_a_file_that_is_no_json_of_labelme(newts, capsys, data):
    add_picture(newts / "train/images/newt.png", [])
    (newts / "train/images/newt.json").write_bytes(data)
    line = fail(newts, capsys)
    assert "newt.json" in line and "in labelme and save it again" in line and "delete" not in line


@pytest.mark.parametrize("size", [(60, 40), (40, 61), ("40", "60")])
def test_a_json_of_another_picture(newts, capsys, size):
    add_picture(newts / "train/images/newt.png", [], *size)
    line = fail(newts, capsys)
    assert "newt.json" in line and f"{size[1]} x {size[0]}" in line and "60 x 40" in line
    assert "put the image that was labelled back" in line and "delete" not in line


def test_a_picture_that_is_not_labelled(newts, capsys):
    add_picture(newts / "train/images/newt.png", [])
    (newts / "train/images/newt.json").unlink()
    line = fail(newts, capsys)
    assert "newt.png" in line and "not labelled" in line


def test_a_json_without_its_picture(newts, capsys):
    add_picture(newts / "train/images/newt.png", [])
    (newts / "train/images/newt.png").unlink()
    assert "newt.json: no image" in fail(newts, capsys)


def test_two_pictures_of_one_name(newts, capsys):
    for suffix in (".png", ".jpg"):
        add_picture((newts / "test/images/newt").with_suffix(suffix), [])
    assert "newt.png: has the same name as newt.jpg" in fail(newts, capsys)


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_a_picture_that_cannot_be_read(newts, capsys, data):
    add_picture(newts / "train/images/newt.png", [])
    (newts / "train/images/newt.png").write_bytes(data)
    assert "newt.png: not an image" in fail(newts, capsys)


def test_no_json_at_all(tmp_path, capsys):
    assert "label the images first" in fail(tmp_path / "nowhere", capsys)
    (tmp_path / "empty/train/images").mkdir(parents=True)
    assert "label the images first" in fail(tmp_path / "empty", capsys)


def test_hidden_files_are_left_alone(newts):
    (newts / "train/images/._a_good.png").write_bytes(b"what macOS leaves")
    (newts / "train/images/.thumbnails").mkdir()
    (newts / "train/images/.thumbnails/a_good.png").write_bytes(b"")
    assert labelme_to_masks.main([str(newts)]) == 0


def test_a_place_that_cannot_be_written(newts, capsys):
    (newts / "train/seg_images").write_text("a file")
    assert "seg_images" in fail(newts, capsys)


def test_a_write_that_fails_leaves_the_old_mask_whole(newts, capsys, monkeypatch):
    assert labelme_to_masks.main([str(newts)]) == 0
    capsys.readouterr()
    add_picture(newts / "train/images/a_good.png", [])

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    assert f"{Path('seg_images/a_good.png')}: No space left" in fail(newts, capsys)


def edit_json(path, **changes):
    """Change these keys of a JSON file; None removes one."""
    saved = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in saved.items() if value is not None}), encoding="utf-8")


def test_what_old_versions_and_editors_saved_is_read(newts):
    """labelme 3 saved no sizes and, of a polygon, no kind; an editor may put a byte order mark first."""
    path = newts / "train/images/a_good.json"
    old = {"label": "akahara", "points": [[10, 5], [50, 5], [50, 30], [10, 30]]}
    edit_json(path, version="3.3.0", imageHeight=None, imageWidth=None, shapes=[old])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert labelme_to_masks.main([str(newts)]) == 0
    mask = read_mask(newts / "train/seg_images/a_good.png")
    assert mask.shape[:2] == (HEIGHT, WIDTH) and colour_at(mask, 20, 20) == AKAHARA


@pytest.mark.parametrize("label", ["background", "_background_"])
def test_what_is_labelled_background_is_a_hole(newts, label):
    outer, hole = ([[a, a], [b, a], [b, b], [a, b]] for a, b in ((5, 35), (15, 25)))
    mask = convert_one(newts, shape("polygon", outer), shape("polygon", hole, label))
    assert colour_at(mask, 20, 20) == BLACK and colour_at(mask, 8, 8) == colour_at(mask, 30, 30) == AKAHARA
    mask = convert_one(newts, shape("polygon", hole, label), shape("polygon", outer))
    assert colour_at(mask, 20, 20) == AKAHARA  # what is drawn later lies above


def test_an_image_of_another_kind_is_named(newts, capsys):
    (newts / "train/images/a_good.png").rename(newts / "train/images/a_good.bmp")
    line = fail(newts, capsys)
    assert "a_good.bmp: is neither .jpg nor .png: save it as one of them" in line and "delete" not in line


def test_a_linked_folder_and_names_that_a_mac_decomposed(newts, tmp_path):
    add_picture(tmp_path / "elsewhere/ポスト.png", [shape("rectangle", [[1, 1], [5, 5]])])
    decomposed = unicodedata.normalize("NFD", "ポスト")
    (tmp_path / "elsewhere/ポスト.json").rename(tmp_path / f"elsewhere/{decomposed}.json")
    link(newts / "train/images/linked", tmp_path / "elsewhere")
    assert labelme_to_masks.main([str(newts)]) == 0
    assert (newts / "train/seg_images/linked/ポスト.png").exists()


def test_names_in_letters_that_the_terminal_lacks(newts, tmp_path):
    folder = newts.rename(tmp_path / "いもり")
    script = Path(labelme_to_masks.__file__)
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "\\u3044" in done.stdout, done.stderr
    named = done.stdout.split("python ")[1].split()[0]
    assert (script.parents[1] / named).is_file()


def test_ctrl_c_during_the_imports(newts, tmp_path):
    (tmp_path / "cv2.py").write_text("import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(20)\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, labelme_to_masks.__file__, newts]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (1, "labelme_to_masks.py: interrupted\n")
