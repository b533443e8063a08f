"""street_inference: pictures and videos painted over, the best and the worst case, milliseconds, ONNX.

What uses no framework is equal in all four answers (tools/copies.py), so PyTorch's is tested, mostly with planted
predictions: a picture's grey is 30 times the category that the network is to find there.
"""

import functools
import importlib.util
import json
import sys

import cv2
import numpy as np
import pytest
from conftest import ANSWERS, FRAMEWORKS, encode, pytorch, stopped, write
from PIL import Image

ANSWER = pytorch("street_inference")
VOID = 255
NAMES = ANSWER.CATEGORIES
COLOURS = [label.colour for leading in ANSWER.LEADING for label in ANSWER.LABELS if label.name == leading]
SIZE = (24, 40)
FLAT, CONSTRUCTION, OBJECT, NATURE, SKY, HUMAN, VEHICLE = range(7)
IDS = (7, 11, 20, 21, 23, 24, 26)  # a label id of each


# ---- painting ----


def test_colours_are_laid_over_half_and_half_with_white_lines_between_classes():
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4
    classes = np.uint8([[4, 4, 4, 4, 0]] + 3 * [[4, 4, 1, 1, 255]])
    painted = ANSWER.paint_over(image, classes, COLOURS)
    edges = {(0, 4), (1, 2), (1, 3), (1, 4), (2, 2), (2, 4), (3, 2), (3, 4)}
    for (row, column), found in np.ndenumerate(classes):
        colour = (0, 0, 0) if found == VOID else COLOURS[found]
        expected = [(int(one) + other) // 2 for one, other in zip(image[row, column], colour, strict=True)]
        assert painted[row, column].tolist() == ([255] * 3 if (row, column) in edges else expected)
    assert image[0, 1].tolist() == [12, 16, 20], "the picture itself is left as it was"


def find_squares(strip, colours):
    """Return the corners of the area of each colour, (top, left, bottom, right); None where there is none."""
    boxes = []
    for colour in colours:
        rows, columns = np.nonzero((strip == np.uint8(colour)).all(axis=2))
        boxes.append((rows.min(), columns.min(), rows.max(), columns.max()) if len(rows) else None)
    return boxes


def test_the_legend_has_the_classes_that_occur_and_no_others():
    shown = np.uint8([[SKY, FLAT, FLAT], [HUMAN, FLAT, SKY]])
    legend = ANSWER.make_legend(shown, NAMES, COLOURS, 512)
    assert legend.shape[1:] == (512, 3)
    boxes = find_squares(legend, COLOURS)
    assert [index for index, box in enumerate(boxes) if box] == [FLAT, SKY, HUMAN]
    lefts = [boxes[index][1] for index in (FLAT, SKY, HUMAN)]
    assert lefts == sorted(lefts), "in the order of the classes"
    for index in (FLAT, SKY, HUMAN):
        top, left, bottom, right = boxes[index]
        assert (
            bottom - top >= 9
            and right - left >= 9
            and (legend[top : bottom + 1, left : right + 1] == COLOURS[index]).all()
        )
        assert (legend[top : bottom + 1, right + 6 : right + 26] < 128).any(), "its name beside it"


def test_a_legend_names_void_and_each_class_by_its_own_name(monkeypatch):
    monkeypatch.setattr(ANSWER, "letter", lambda entries, width: [(text, tuple(colour)) for text, colour in entries])
    colours = [list(colour) for colour in COLOURS]  # as metrics.json has them
    legend = ANSWER.make_legend(np.uint8([[VOID, NATURE], [OBJECT, NATURE]]), NAMES, colours, 100)
    assert legend == [("object", COLOURS[OBJECT]), ("nature", COLOURS[NATURE]), ("void", (0, 0, 0))]
    assert ANSWER.make_legend(np.arange(7), NAMES, colours, 100) == list(zip(NAMES, COLOURS, strict=True))


@pytest.mark.parametrize("width", [120, 300, 512, 2048])
def test_texts_are_whole_in_lines_of_the_width_and_larger_in_larger_pictures(width):
    strip = ANSWER.letter(list(zip(NAMES, COLOURS, strict=True)), width)
    assert strip.shape[1:] == (width, 3) and strip.dtype == np.uint8
    edge = 3
    for side in (strip[:edge], strip[-edge:], strip[:, :edge], strip[:, -edge:]):
        assert (side == 255).all(), "cut off"
    boxes = find_squares(strip, COLOURS)
    assert all(boxes) and len({box[0] for box in boxes}) == {120: 6, 300: 2, 512: 1, 2048: 1}[width]
    assert boxes[0][2] - boxes[0][0] == max(12, width // 40) - 2  # without its black outline


def test_words_of_a_caption_go_on_in_the_next_line():
    one, more = (ANSWER.make_caption(text, 200) for text in ("prediction", "prediction " * 8))
    assert one.shape[0] < more.shape[0] and one.shape[1] == more.shape[1] == 200
    dark = (more < 128).any(axis=(1, 2))
    assert np.diff(np.flatnonzero(np.diff(dark.astype(int)) == 1)).tolist() == [18, 18], "three lines"


# ---- judging ----


def test_the_sentence_names_what_most_pixels_were_taken_for_and_their_share():
    confusion = np.array([[50, 0, 10], [2, 3, 0], [0, 0, 0]])
    assert ANSWER.name_confusion(confusion, ["a", "b", "c"]) == "a taken for c: 16.7% of its pixels"
    assert ANSWER.name_confusion(confusion.T, ["a", "b", "c"]) == "c taken for a: 100.0% of its pixels"
    assert ANSWER.name_confusion(np.diag([4, 0, 9]), ["a", "b", "c"]) == "nothing was confused"


def test_a_picture_is_judged_by_its_own_categories_without_void():
    """Road: 3 right, 1 taken for sky; sky: 1 right, 1 taken for a person; parking and the own bonnet do not count."""
    ids = np.uint8([[7, 7, 7, 7], [23, 23, 1, 9]])
    classes = np.uint8([[FLAT, FLAT, FLAT, SKY], [SKY, HUMAN, VEHICLE, VEHICLE]])
    case = ANSWER.judge(ids, classes, "category")
    iou = {"flat": 3 / 4, "sky": 1 / 3, "human": 0.0}
    assert {name: value for name, value in case["iou"].items() if value is not None} == pytest.approx(iou)
    assert list(case["iou"]) == list(NAMES) and case["miou"] == pytest.approx(np.mean([3 / 4, 1 / 3, 0]))
    assert case["confused"] == "flat taken for sky: 25.0% of its pixels"
    case = ANSWER.judge(np.full((2, 2), 1, np.uint8), np.zeros((2, 2), np.uint8), "category")
    assert case["miou"] is None and case["confused"] == "nothing was confused"


def test_at_class_level_a_pavement_taken_for_road_is_confused():
    classes = np.uint8([[0, 0, 1, 0]])  # train ids: road, road, pavement, road
    case = ANSWER.judge(np.uint8([[7, 7, 8, 8]]), classes, "class")
    assert case["confused"] == "sidewalk taken for road: 50.0% of its pixels" and len(case["iou"]) == 19
    assert case["iou"]["road"] == pytest.approx(2 / 3) and case["iou"]["sidewalk"] == pytest.approx(1 / 2)


# ---- pictures of any size ----


def predict_planted(images):
    """Return the logits of what is planted in images (N, height, width, 3) that normalise has changed."""
    grey = np.rint((images * ANSWER.STD + ANSWER.MEAN)[..., 0] * 255 / 30)
    return np.float32(np.arange(7) == grey[..., None])


def plant(classes, scale=1):
    """Return the picture, (height, width, 3) uint8, in which predict_planted finds classes."""
    return np.repeat(30 * np.uint8(classes)[..., None], 3, axis=2).repeat(scale, axis=0).repeat(scale, axis=1)


def draw_classes(seed, size=SIZE):
    """Return blocks of drawn categories."""
    rows, columns = (length // 8 for length in size)
    return (
        np.random.default_rng(seed).integers(0, 7, (rows, columns)).repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)
    )


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_classes_come_in_the_size_of_the_picture_and_at_their_places(scale):
    classes, seen = draw_classes(0), []

    def run(images):
        seen.append(images)
        return predict_planted(images)

    found = ANSWER.segment(run, plant(classes, scale), list(SIZE))
    assert [images.shape for images in seen] == [(1, *SIZE, 3)] and seen[0].dtype == np.float32
    assert found.dtype == np.uint8 and np.array_equal(found, classes.repeat(scale, axis=0).repeat(scale, axis=1))


def test_a_picture_of_odd_size_is_segmented_too():
    for shape in ((7, 5), (301, 211)):
        found = ANSWER.segment(predict_planted, np.full((*shape, 3), 60, np.uint8), list(SIZE))
        assert found.shape == shape and (found == OBJECT).all()


def test_pictures_are_made_smaller_by_the_mean_over_the_area_as_the_records_were():
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    blocks = image.reshape(24, 2, 40, 2, 3).mean(axis=(1, 3))
    assert np.abs(ANSWER.shrink(image, list(SIZE)).astype(float) - blocks).max() <= 0.5
    larger = ANSWER.shrink(np.uint8([[[0] * 3, [100] * 3]]), [1, 8])[0, :, 0].tolist()
    assert larger == sorted(larger) and len(set(larger)) > 4, "blended"


def test_time_is_the_median_after_a_warm_up(monkeypatch):
    calls, clock = [], iter(np.cumsum([0] + 3 * [9, 0] + [t for i in range(20) for t in (0.001 * (i + 1), 0)]))
    monkeypatch.setattr(ANSWER.time, "perf_counter", lambda: next(clock))
    assert ANSWER.time_run(lambda: calls.append(None)) == pytest.approx(10.5) and len(calls) == 23


# ---- a run with planted predictions ----

WRONG = {  # of each picture what is found instead of what is there, in how many columns of 40
    "ulm_000000_000019": (CONSTRUCTION, NATURE, 4),
    "ulm_000001_000019": (HUMAN, CONSTRUCTION, 30),
    "ulm_000002_000019": (VEHICLE, FLAT, 0),
    "ulm_000003_000019": (SKY, OBJECT, 20),
}


def plant_pair(true, predicted, columns):
    """Return label ids, and what is to be found: half of a picture is flat, the other true, or in part predicted."""
    ids, classes = np.full(SIZE, IDS[FLAT], np.uint8), np.full(SIZE, FLAT, np.uint8)
    ids[:12], classes[:12] = IDS[true], true
    classes[:12, :columns] = predicted
    return ids, classes


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """The folder of a raw set, and metrics of records that need no records; predictions are planted."""
    for split, number in (("train", 1), ("val", 4)):
        for name, wrong in list(WRONG.items())[:number]:
            ids, classes = plant_pair(*wrong)
            write(tmp_path / f"raw/leftImg8bit/{split}/ulm/{name}_leftImg8bit.png", encode(".png", plant(classes)))
            write(tmp_path / f"raw/gtFine/{split}/ulm/{name}_gtFine_labelIds.png", encode(".png", ids[..., None]))
    metrics = {"options": {}, "noticed": 1, "level": "category", "size": SIZE, "classes": NAMES, "colours": COLOURS}
    write(tmp_path / "records/metrics.json", json.dumps(metrics).encode())
    monkeypatch.setattr(ANSWER, "predict", lambda network, images, options: predict_planted(images))
    monkeypatch.setattr(ANSWER, "load_weights", lambda network, path: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch, *arguments):
    given = [*arguments, "--data", "records", "--truth", "raw", "--weights", "best.pt", "--out", "out"]
    monkeypatch.setattr(sys, "argv", list(map(str, ["answer", *given, "--device", "cpu"])))
    ANSWER.main()


def read_metrics():
    return json.loads(ANSWER.Path("out/metrics.json").read_text("utf-8"))


def read(path):
    return np.array(Image.open(path))


def test_best_and_worst_are_by_iou_with_a_sentence(planted, monkeypatch, capsys):
    call(monkeypatch, 4, "val")
    metrics = read_metrics()
    cases = {case["name"]: case for case in metrics["pictures"]}
    assert list(cases) == sorted(WRONG) and (metrics["best"], metrics["worst"]) == (
        "ulm_000002_000019",
        "ulm_000001_000019",
    )
    assert cases["ulm_000002_000019"]["miou"] == 1 and cases["ulm_000002_000019"]["confused"] == "nothing was confused"
    worst = cases["ulm_000001_000019"]
    assert worst["confused"] == "human taken for construction: 75.0% of its pixels"
    assert worst["miou"] == pytest.approx(np.mean([1, 0.25, 0]))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed[:4]] == [f"ulm_00000{i}_000019" for i in "2031"]
    assert printed[3] == f"ulm_000001_000019: mean IoU {worst['miou']:.3f}; {worst['confused']}"
    assert [path.stem for path in sorted(ANSWER.Path("out/pictures").iterdir())] == sorted(WRONG)
    for name, wrong in WRONG.items():
        classes = plant_pair(*wrong)[1]
        picture = read(f"out/pictures/{name}.png")
        assert np.array_equal(picture[:24], ANSWER.paint_over(plant(classes), classes, COLOURS))
        assert [bool(box) for box in find_squares(picture[24:], COLOURS)] == [index in classes for index in range(7)]


def test_a_case_shows_picture_truth_and_prediction_and_all_their_classes(planted, monkeypatch):
    call(monkeypatch, 4, "val")
    worst = read("out/worst.png")
    ids, classes = plant_pair(*WRONG["ulm_000001_000019"])
    truth = ANSWER.make_table("category")[ids]
    panels = plant(classes), *(ANSWER.paint_over(plant(classes), each, COLOURS) for each in (truth, classes))
    tops = []
    for panel in panels:
        tops.append([top for top in range(len(worst) - 23) if np.array_equal(worst[top : top + 24], panel)])
    assert all(len(places) == 1 for places in tops) and tops == sorted(tops)
    legend = worst[tops[2][0] + 24 :]
    assert [index for index, box in enumerate(find_squares(legend, COLOURS)) if box] == [FLAT, CONSTRUCTION, HUMAN]
    assert not np.array_equal(read("out/best.png"), worst)


def test_a_single_picture_is_the_best_and_not_the_worst(planted, monkeypatch):
    write(planted / "out/worst.png", b"of an earlier run")
    call(monkeypatch, 1, "train")
    assert read_metrics()["best"] == "ulm_000000_000019" and "worst" not in read_metrics()
    assert (planted / "out/best.png").exists() and not (planted / "out/worst.png").exists()


def test_by_default_twelve_pictures_of_val_are_asked_for_or_all_where_there_are_fewer(planted, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["answer", "--device", "cpu"])
    options = ANSWER.read_options()
    assert (options.number, options.split) == (None, "val")
    for number, split, there in ((5, "val", 4), (2, "train", 1)):
        line = stopped(capsys, call, monkeypatch, number, split)
        assert f"{number} {split}: raw has {there} pictures there: give fewer" in line
    assert not (planted / "out").exists()
    call(monkeypatch)
    assert len(read_metrics()["pictures"]) == 4
    monkeypatch.setattr(ANSWER, "NUMBER", 3)
    call(monkeypatch)
    assert len(read_metrics()["pictures"]) == 3


def test_a_transparent_picture_is_refused(planted, monkeypatch):
    clear = np.full((24, 40, 4), 255, np.uint8)
    write(planted / "clear.png", encode(".png", clear))
    call(monkeypatch, "--images", "clear.png")  # opaque in spite of its fourth channel
    clear[3, 5, 3] = 254
    write(planted / "clear.png", encode(".png", clear))
    with pytest.raises(ANSWER.Faulty, match="clear.png: has transparent pixels"):
        call(monkeypatch, "--images", "clear.png")


@pytest.mark.parametrize("option, kind", [("--images", "picture"), ("--video", "video")])
def test_a_folder_or_a_missing_file_is_told_with_its_option(planted, monkeypatch, option, kind):
    for path in (planted, "nowhere.png"):
        with pytest.raises(ANSWER.Faulty, match=f"^{option} .*{path}: [A-Z].*: name a {kind}'s file$"):
            call(monkeypatch, option, path)


def test_the_choice_depends_on_the_seed_alone(planted, monkeypatch):
    names = {}
    for seed in (0, 1, 2, 3, 4, 5, 0):
        call(monkeypatch, 2, "val", "--seed", seed)
        names.setdefault(seed, set()).add(tuple(case["name"] for case in read_metrics()["pictures"]))
    assert all(len(found) == 1 for found in names.values()) and len(set().union(*names.values())) > 2
    for found in names.values():
        [chosen] = found
        assert len(set(chosen)) == 2 and list(chosen) == sorted(chosen)


def test_a_picture_without_labels_is_not_chosen_and_a_faulty_one_is_told_first(planted, monkeypatch):
    (planted / "raw/gtFine/val/ulm/ulm_000001_000019_gtFine_labelIds.png").unlink()
    call(monkeypatch, 3, "val")
    assert [case["name"][-8] for case in read_metrics()["pictures"]] == list("023") or len(
        read_metrics()["pictures"]
    ) == 3
    write(planted / "raw/leftImg8bit/val/ulm/ulm_000003_000019_leftImg8bit.png", b"no picture")
    (planted / "out/metrics.json").unlink()
    with pytest.raises(ANSWER.Faulty, match="ulm_000003_000019_leftImg8bit.png: "):
        call(monkeypatch, 3, "val")
    assert not (planted / "out/metrics.json").exists()


# ---- one's own pictures ----


def test_own_pictures_are_turned_upright_and_painted_over_without_iou(planted, monkeypatch, capsys):
    classes = draw_classes(1, (48, 80))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(np.rot90(plant(classes))).save(planted / "upright.png", exif=exif)
    Image.fromarray(plant(classes)[..., 0]).save(planted / "grey.png")
    write(planted / "out/best.png", b"of an earlier run")
    call(monkeypatch, "--images", "upright.png", "grey.png")
    for name in ("upright", "grey"):
        picture = read(f"out/pictures/{name}.png")
        assert np.array_equal(picture[:48], ANSWER.paint_over(plant(classes), classes, COLOURS)), name
    metrics = read_metrics()
    assert metrics["pictures"] == [{"name": "upright"}, {"name": "grey"}]
    assert "best" not in metrics and "IoU" not in capsys.readouterr().out and not (planted / "out/best.png").exists()
    assert set(metrics["milliseconds"]) == {"network", "all, with resizing"}


def test_what_is_wrong_with_own_pictures_is_told_before_anything_is_written(planted, monkeypatch, capsys):
    Image.fromarray(plant(draw_classes(1))).save(planted / "good.png")
    write(planted / "bad.jpg", encode(".jpg", plant(draw_classes(1)))[:300])
    with pytest.raises(ANSWER.Faulty, match=r"^bad\.jpg: "):
        call(monkeypatch, "--images", "good.png", "bad.jpg")
    with pytest.raises(ANSWER.Faulty, match="missing.png"):
        call(monkeypatch, "--images", "good.png", "missing.png")
    line = stopped(capsys, call, monkeypatch, "--images", "good.png", "other/good.jpg")
    assert "--images good.png: " in line and "rename it" in line
    assert not (planted / "out").exists()
    write(planted / "out/pictures/mine.png", (planted / "good.png").read_bytes())
    assert "rename it" in stopped(capsys, call, monkeypatch, "--images", "out/pictures/mine.png")
    assert (planted / "out/pictures/mine.png").read_bytes() == (planted / "good.png").read_bytes()


# ---- videos ----


def write_video(path, number, size, rate=12.0):
    """Write a video in which frame i is painted with category i % 7."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*ANSWER.CODEC), rate, size[::-1])
    for i in range(number):
        writer.write(np.full((*size, 3), 30 * (i % 7), np.uint8))
    writer.release()


@pytest.mark.parametrize("size", [(48, 80), (50, 77)])
def test_every_so_many_frames_are_painted_over_and_make_a_video(planted, monkeypatch, size):
    write_video(planted / "clip.mp4", 20, size)
    call(monkeypatch, "--video", "clip.mp4", "--every", 3)
    names = [f"clip_{i:06}" for i in range(0, 20, 3)]
    assert [case["name"] for case in read_metrics()["pictures"]] == names
    assert sorted(path.stem for path in (planted / "out/pictures").iterdir()) == names
    video = cv2.VideoCapture("out/clip_painted.mp4")
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(4) and video.get(cv2.CAP_PROP_FRAME_COUNT) == 7
    for i, name in zip(range(0, 20, 3), names, strict=True):
        painted, (there, frame) = read(f"out/pictures/{name}.png"), video.read()
        assert there and frame.shape[:2] == tuple(length // 2 * 2 for length in painted.shape[:2])
        colour = np.float64(COLOURS[i % 7]) / 2 + 15 * (i % 7)
        for picture in (painted, frame[..., ::-1]):  # with what compression changes
            assert np.abs(picture[10 : size[0] - 10, 10 : size[1] - 10].mean(axis=(0, 1)) - colour).max() < 8
        assert all(find_squares(painted[size[0] :], COLOURS)), "every class, so that all frames have one size"
    assert not video.read()[0]


def test_what_is_no_video_is_told_in_one_line_and_nothing_is_written(planted, monkeypatch, fork):
    write_video(planted / "clip.mp4", 20, (48, 80))
    write(planted / "cut.mp4", (planted / "clip.mp4").read_bytes()[:700])
    write(planted / "text.mp4", b"no video")
    options = ANSWER.argparse.Namespace(network="unet", device="cpu")
    network = ANSWER.build_network(np.random.default_rng(0), 7, options)
    ANSWER.torch.save(network.state_dict(), planted / "best.pt")
    for name in ("cut.mp4", "text.mp4"):  # by itself, since FFmpeg writes to stderr, and looks but once if it may
        arguments = ["--video", name, "--data", "records", "--weights", "best.pt", "--out", "out", "--device", "cpu"]
        done = fork(ANSWERS["street_inference", "pytorch"], *arguments, cwd=planted)
        told = f"--video {name}: OpenCV finds no frame in it: convert it to an .mp4 first"
        assert done.returncode == 2 and done.stderr == f"05_street_inference_pytorch.py: {told}\n"
    with pytest.raises(ANSWER.Faulty, match="missing.mp4"):
        call(monkeypatch, "--video", "missing.mp4")
    assert not (planted / "out").exists()


def test_a_video_that_could_not_be_written_whole_is_none(planted, monkeypatch):
    class Full:  # no subclass: what derives from OpenCV's own class damages memory when it is freed
        def __init__(self, *arguments):
            self.writer, self.left, self.release = opened(*arguments), 2, lambda: self.writer.release()

        def write(self, frame):
            self.left -= 1
            if self.left >= 0:
                self.writer.write(frame)

    opened = cv2.VideoWriter
    write_video(planted / "clip.mp4", 4, (48, 80))
    monkeypatch.setattr(cv2, "VideoWriter", Full)
    with pytest.raises(OSError, match="clip_painted.mp4: only some of the 4 frames could be written"):
        call(monkeypatch, "--video", "clip.mp4", "--every", 1)
    assert sorted(path.name for path in (planted / "out").iterdir()) == ["pictures"]


# ---- options ----


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("val",), "number: invalid int value: 'val'"),
        ((3, "test"), "split: invalid choice: 'test'"),
        ((0, "val"), "0: give the number of pictures, 1 or more"),
        ((3, "--images", "a.png"), "3: counts pictures of --truth: leave it out"),
        ((3, "val", "--video", "a.mp4"), "3: counts pictures of --truth: leave it out"),
        (("--images", "a.png", "--video", "a.mp4"), "--video: not allowed with argument --images"),
        (("--export", "net.pt"), "--export net.pt: give a name that ends in .onnx"),
        (("--every", 0), "--every 0: give 1 to "),
    ],
    ids=lambda part: None if isinstance(part, str) else " ".join(map(str, part)),
)
def test_options_that_make_no_sense_are_told(planted, monkeypatch, capsys, arguments, told):
    assert told in stopped(capsys, call, monkeypatch, *arguments)
    assert not (planted / "out").exists()


def test_packages_that_export_needs_and_are_missing_are_named(planted, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    assert stopped(capsys, call, monkeypatch, "--export", "net.onnx").endswith("pip install onnxscript")
    call(monkeypatch, 1, "val")  # without it they are not needed


# ---- the network itself, in all frameworks ----

SAVE = """
import sys
sys.path.insert(0, {tests!r})
import conftest
import numpy as np
train = conftest.load(conftest.ANSWERS["street_train", {framework!r}])
options = train.argparse.Namespace(network={network!r}, device="cpu")
train.save_weights(train.build_network(np.random.default_rng(3), 7, options), train.Path(train.WEIGHTS))
"""
WEIGHTS = dict(zip(FRAMEWORKS, ("best.pt", "best.index", "best.weights.h5", "best.npz"), strict=True))
RUNS = [("pytorch", "unet"), ("tensorflow", "deeplab"), ("keras", "unet"), ("chainer", "unet"), ("chainer", "deeplab")]


@pytest.fixture(scope="module")
def expected(tmp_path_factory, fork):
    """Return a function of a network: the metrics of PyTorch's answer."""
    return functools.cache(lambda network: run_alone(fork, "pytorch", network, tmp_path_factory.mktemp("の街"), False))


def run_alone(fork, framework, network, folder, export=True):
    """Run an answer with drawn weights on drawn pictures; return its metrics."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(3):
            ids = np.uint8(IDS)[rng.integers(0, 7, (4, 6))].repeat(16, axis=0).repeat(16, axis=1)
            picture = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            name = f"{split}/ulm/ulm_00000{number}_000019"
            write(folder / f"raw/leftImg8bit/{name}_leftImg8bit.png", encode(".png", picture))
            write(folder / f"raw/gtFine/{name}_gtFine_labelIds.png", encode(".png", ids[..., None]))
    metrics = {"options": {}, "noticed": 1, "level": "category", "size": (32, 48), "classes": NAMES, "colours": COLOURS}
    write(folder / "records/metrics.json", json.dumps(metrics).encode())
    arguments = [3, "val", "--data", "records", "--truth", "raw", "--weights", WEIGHTS[framework], "--out", "out"]
    arguments += ["--network", network, "--device", "cpu", *(["--export", "net 網.onnx"] if export else [])]
    save = SAVE.format(tests=str(ANSWER.Path(__file__).parent), framework=framework, network=network)
    done = fork(ANSWERS["street_inference", framework], *arguments, cwd=folder, before=save)
    assert done.returncode == 0, done.stderr
    noise = [line for line in done.stderr.splitlines() if line and "%|" not in line]
    assert not noise, "more than progress bars"
    return json.loads((folder / "out/metrics.json").read_text("utf-8"))


@pytest.mark.parametrize("framework, network", RUNS)
def test_each_framework_finds_the_same_and_so_does_onnxruntime(framework, network, expected, tmp_path, fork):
    pytest.importorskip("onnxruntime")
    found, wanted = run_alone(fork, framework, network, tmp_path), expected(network)
    assert found["pixels"] == 3 * 64 * 96 and found["different"] == 0
    assert (tmp_path / "net 網.onnx").exists() and set(found["milliseconds"]) == {
        "network",
        "network, by onnxruntime",
        "all, with resizing",
    }
    for case, other in zip(found["pictures"], wanted["pictures"], strict=True):
        assert case["name"] == other["name"] and case["miou"] == pytest.approx(other["miou"], abs=0.002)
    assert len({case["confused"] for case in found["pictures"]} | {"nothing was confused"}) > 1


def test_what_pytorch_exports_takes_any_number_and_size_of_images(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = ANSWER.argparse.Namespace(network="deeplab", device="cpu")
    network = ANSWER.build_network(np.random.default_rng(0), 7, options)
    ANSWER.export(network, tmp_path / "net.onnx", [32, 48])
    [images] = onnxruntime.InferenceSession(tmp_path / "net.onnx").get_inputs()
    assert (images.name, images.shape) == ("images", ["batch", 3, "height", "width"])
    run = ANSWER.open_onnx(tmp_path / "net.onnx")
    for shape in ((1, 32, 48, 3), (3, 64, 32, 3)):
        images = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        logits = ANSWER.predict(network, images, options)
        assert run(images).shape == logits.shape == (*shape[:3], 7)
        assert np.array_equal(run(images).argmax(axis=3), logits.argmax(axis=3))
        assert np.abs(run(images) - logits).max() < 1e-3
