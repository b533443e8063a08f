"""voc_dataset: reading VOC, crops, measures by hand, and the batches that each framework hands out by its own means.

What uses no framework is equal in all four answers (tools/copies.py), so PyTorch's is tested.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ANSWERS, FRAMEWORKS, ROOT, VOC_SIZES, encode, encode_mask, pytorch, stopped, write, write_voc
from PIL import Image

sys.path.insert(0, str(ROOT / "Dataset"))
import draw_voc  # noqa: E402

ANSWER = pytorch("voc_dataset")
VOID = 255
FOLDER = "VOCdevkit/VOC2012"
SMALL = ["--device", "cpu", "--size", 32, "--batch", 3, "--iterations", 4, "--pictures", 2]


def make_options(**changes):
    return SimpleNamespace(
        **{"iterations": 4, "batch": 3, "size": 32, "seed": 0, "crop": "random", "workers": 0} | changes
    )


def make_samples(voc, **changes):
    options = make_options(**changes)
    names = list(VOC_SIZES["train"])
    return ANSWER.Samples(voc / FOLDER, names, options, np.random.default_rng(options.seed))


def same(one, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


# ---- reading ----


def test_colours_and_classes_are_those_of_voc():
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 8: (64, 0, 0), 15: (192, 128, 128)}
    known |= {20: (0, 64, 128), 255: (224, 224, 192)}
    assert {index: tuple(ANSWER.COLOURS[index].tolist()) for index in known} == known
    assert [ANSWER.CLASSES[index] for index in (0, 1, 15, 20)] == ["background", "aeroplane", "person", "tvmonitor"]
    assert np.array_equal(ANSWER.COLOURS, draw_voc.COLOUR_MAP) and ANSWER.COLOURS.dtype == np.uint8
    assert list(ANSWER.CLASSES) == list(draw_voc.CLASSES) and ANSWER.VOID == draw_voc.VOID == VOID


def test_a_mask_is_read_as_the_indices_of_its_palette(tmp_path):
    mask = np.uint8([[*range(21), VOID]] * 3)
    write(tmp_path / "palette.png", encode_mask(mask))
    write(tmp_path / "grey.png", encode(".png", mask[..., None]))
    write(tmp_path / "short.png", encode_mask(mask[:, :21], ANSWER.COLOURS[:21]))
    for name, expected in (("palette", mask), ("grey", mask), ("short", mask[:, :21])):
        assert same([ANSWER.read_mask(tmp_path / f"{name}.png")], [expected])


def swapped_palette():
    colours = ANSWER.COLOURS.copy()
    colours[[1, 2]] = colours[[2, 1]]
    return colours


MASK = np.uint8([[0, 1, 2], [15, 20, VOID]])
WRONG_MASKS = {
    "colours": (encode(".png", ANSWER.COLOURS[MASK]), "holds colours (mode RGB)"),
    "alpha": (encode(".png", np.dstack([ANSWER.COLOURS[MASK], MASK])), "holds colours (mode RGBA)"),
    "unknown": (encode_mask(np.uint8([[0, 21, 254, VOID]])), "unknown class indices [21, 254]"),
    "unknown grey": (encode(".png", np.uint8([[[0], [38]]])), "unknown class indices [38]"),
    "palette": (encode_mask(MASK, swapped_palette()), "its palette is not VOC's"),
    "short palette": (encode_mask(MASK, ANSWER.COLOURS[:21]), "its palette is not VOC's"),  # it lacks void
    "16 bits": (encode(".png", np.uint16(MASK)[..., None]), "more than 8 bits"),
    "cut off": (encode_mask(np.random.default_rng(0).integers(0, 21, (40, 40)))[:-100], "save it again"),
    "no image": (b"no image", "save it again"),
}


@pytest.mark.parametrize("data, message", WRONG_MASKS.values(), ids=WRONG_MASKS)
def test_a_wrong_mask_is_told_in_one_line(tmp_path, capsys, data, message):
    path = tmp_path / "mask.png"
    write(path, data)
    line = stopped(capsys, ANSWER.read_mask, path)
    assert f"{path}: " in line and message in line


def test_a_palette_may_differ_where_no_pixel_is(tmp_path):
    colours = swapped_palette()
    write(tmp_path / "mask.png", encode_mask([[0, 3, VOID]], colours))
    assert ANSWER.read_mask(tmp_path / "mask.png").tolist() == [[0, 3, VOID]]


def test_pairs_are_as_large_as_each_other_and_upright(voc):
    for sizes in VOC_SIZES.values():
        for name, size in sizes.items():
            image, mask = ANSWER.read_pair(voc / FOLDER, name)
            assert image.shape == (*size, 3) and mask.shape == size and image.dtype == mask.dtype == np.uint8
            # 15 x (3, 5, 7) and noise of 0 to 40: turned otherwise, the person would not lie below its mask.
            expected = 15 * np.array([3, 3, 3] if name == "2008_000001" else [3, 5, 7]) + 20
            assert np.abs(image[mask == 15].mean(axis=0) - expected).max() < 6


def test_a_pair_of_two_sizes_and_a_damaged_image_are_told(tmp_path, capsys):
    write_voc(tmp_path)
    path = tmp_path / FOLDER / "SegmentationClass" / "2007_000032.png"
    write(path, encode_mask(np.zeros((50, 30))))
    line = stopped(capsys, ANSWER.read_pair, tmp_path / FOLDER, "2007_000032")
    assert f"{path}: is (50, 30) in size, its image, turned upright, (30, 50)" in line
    path = tmp_path / FOLDER / "JPEGImages" / "2007_000039.jpg"
    write(path, path.read_bytes()[:-200])
    line = stopped(capsys, ANSWER.read_pair, tmp_path / FOLDER, "2007_000039")
    assert f"{path}: " in line and "take the original" in line


# ---- the folder and its lists ----


def test_voc_is_found_in_three_layouts_and_nowhere_else(voc, tmp_path, capsys):
    for folder in (voc, voc / "VOCdevkit", voc / FOLDER):
        assert ANSWER.find_voc(folder) == voc / FOLDER
    for folder in (tmp_path, tmp_path / "nothing", voc / FOLDER / "JPEGImages"):
        line = stopped(capsys, ANSWER.find_voc, folder)
        assert f"{folder}: holds no {FOLDER}/ImageSets/Segmentation/" in line and "--data" in line


DRAWS = """
from pathlib import Path
lists = Path(__file__).with_name("voc") / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
lists.mkdir(parents=True, exist_ok=True)
with open(lists / "{file}", "a") as file:
    file.write("one\\n")
raise SystemExit({status})
"""


def test_pictures_are_drawn_where_none_are_or_not_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ANSWER, "DRAWN", tmp_path / "voc")
    handler = signal.getsignal(signal.SIGINT)
    write(tmp_path / "draw_voc.py", DRAWS.format(file="part.txt", status=130).encode())
    for _ in range(2):  # the second time the folder is there, but not complete
        with pytest.raises(SystemExit) as end:
            ANSWER.find_voc(tmp_path / "voc")
        assert end.value.code == 130 and signal.getsignal(signal.SIGINT) == handler
    write(tmp_path / "draw_voc.py", DRAWS.format(file="val.txt", status=0).encode())
    for _ in range(2):
        assert ANSWER.find_voc(tmp_path / "voc") == tmp_path / "voc" / FOLDER
    lists = tmp_path / "voc" / FOLDER / "ImageSets" / "Segmentation"
    assert (lists / "part.txt").read_text() == "one\none\n" and (lists / "val.txt").read_text() == "one\n"
    assert capsys.readouterr().out.count("drawing pictures") == 3
    stopped(capsys, ANSWER.find_voc, tmp_path / "other")  # draws only at the default place
    shutil.rmtree(tmp_path / "voc")
    monkeypatch.chdir(tmp_path)
    assert ANSWER.find_voc(Path("voc")) == Path("voc") / FOLDER  # however it is named


def test_names_are_those_of_the_lists(voc):
    for split, sizes in VOC_SIZES.items():
        assert ANSWER.read_names(voc / FOLDER, split) == list(sizes)


@pytest.mark.parametrize("text", ["", "\n", "2007_000032\n2007_000039\n2007_000032\n"])
def test_an_empty_list_and_a_doubled_name_are_told(tmp_path, capsys, text):
    write_voc(tmp_path)
    path = tmp_path / FOLDER / "ImageSets" / "Segmentation" / "train.txt"
    write(path, text.encode())
    assert f"{path}: empty, or names an image twice" in stopped(capsys, ANSWER.read_names, tmp_path / FOLDER, "train")


@pytest.mark.parametrize("data", [b"2007_000032\n\xff\n", "2007_000032\n".encode("utf-16")], ids=["a byte", "UTF-16"])
def test_a_list_that_is_not_utf_8_is_told_but_may_begin_with_a_mark(tmp_path, capsys, data):
    write_voc(tmp_path)
    path = tmp_path / FOLDER / "ImageSets" / "Segmentation" / "val.txt"
    right = path.read_text("utf-8")
    write(path, data)
    assert f"{path}: not in UTF-8" in stopped(capsys, ANSWER.read_names, tmp_path / FOLDER, "val")
    write(path, right.encode("utf-8-sig"))
    assert ANSWER.read_names(tmp_path / FOLDER, "val") == list(VOC_SIZES["val"])


@pytest.mark.parametrize("name", ["../../up", "/up", "sub/2007_000032", "sub\\up", "C:up", "..up"])
def test_a_path_is_no_name(tmp_path, capsys, name):
    """Pictures of it would be written outside --out."""
    write_voc(tmp_path)
    path = tmp_path / FOLDER / "ImageSets" / "Segmentation" / "val.txt"
    write(path, f"2007_000033\n{name}\n".encode())
    assert f"{path}: {name}: not the name" in stopped(capsys, ANSWER.read_names, tmp_path / FOLDER, "val")


@pytest.mark.parametrize("file", ["JPEGImages/2010_000042.jpg", "SegmentationClass/2010_000042.png"])
def test_a_name_without_image_or_mask_is_told(tmp_path, capsys, file):
    write_voc(tmp_path)
    (tmp_path / FOLDER / file).unlink()
    line = stopped(capsys, ANSWER.read_names, tmp_path / FOLDER, "val")
    assert f"{tmp_path / FOLDER / file}: not there, but " in line and "val.txt names it" in line


# ---- crops ----


def test_images_are_averaged_or_blended_and_masks_take_the_pixel_under_the_middle():
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (24, 36, 3), np.uint8), rng.integers(0, 21, (24, 36), np.uint8)
    smaller, small_mask = ANSWER.resize(image, mask, 12, 12)
    assert np.abs(smaller - image.reshape(12, 2, 12, 3, 3).mean(axis=(1, 3))).max() <= 0.51
    assert np.array_equal(small_mask, mask[1::2, 1::3])
    larger, large_mask = ANSWER.resize(image, mask, 48, 72)
    assert np.array_equal(large_mask, mask.repeat(2, axis=0).repeat(2, axis=1))
    wide = image.astype(float)
    wide = 0.75 * wide[:-1] + 0.25 * wide[1:]
    wide = 0.75 * wide[:, :-1] + 0.25 * wide[:, 1:]
    assert np.abs(larger[1:-1:2, 1:-1:2] - wide).max() <= 1


@pytest.mark.parametrize("shape", [(20, 60), (61, 20), (20, 20)])
def test_the_centre_crop_is_the_square_in_the_middle(shape):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(0, 21, shape, np.uint8)
    top, left = (length // 2 - 10 for length in shape)
    middle = np.s_[top : top + 20, left : left + 20]
    assert same(ANSWER.centre_crop(image, mask, 20), (image[middle], mask[middle]))
    small, small_mask = ANSWER.centre_crop(image, mask, 10)
    assert small.shape == (10, 10, 3) and np.array_equal(small_mask, mask[middle][1::2, 1::2])


@pytest.fixture(scope="module")
def crops():
    """300 random crops, 64 x 64, of an image 160 wide and 100 high.

    Red grows by 1 a column from 20 on, and the mask is 1 left of column 80, 2 right of it; green grows by 2 a row.
    """
    image = np.zeros((100, 160, 3), np.uint8)
    image[..., 0], image[..., 1] = 20 + np.arange(160), 20 + 2 * np.arange(100)[:, None]
    mask = np.where(np.arange(160) < 80, np.uint8(1), np.uint8(2))[None].repeat(100, axis=0)
    return [ANSWER.random_crop(image, mask, 64, np.random.default_rng(seed)) for seed in range(300)]


def test_random_crops_are_of_one_size_and_beyond_the_image_void_and_of_the_mean_colour(crops):
    for image, mask in crops:
        assert image.shape == (64, 64, 3) and mask.shape == (64, 64) and image.dtype == mask.dtype == np.uint8
        assert (image[mask == VOID] == np.uint8([124, 116, 104])).all()
        inside = (mask != VOID).any(axis=1).sum(), (mask != VOID).any(axis=0).sum()
        assert (mask != VOID).sum() == inside[0] * inside[1]  # a rectangle
        assert (image[mask != VOID][:, 2] == 0).all()
    assert np.abs(ANSWER.normalise(np.uint8([[[124, 116, 104]]]))).max() < 0.01
    assert 50 < sum((mask == VOID).any() for _, mask in crops) < 150  # below scale 1: a third of them


def test_random_crops_are_scaled_by_half_to_two(crops):
    """At scale 1 a pixel is 100 / 64 rows of the image, so that green grows by 2 x 100 / 64."""
    scales = []
    for image, mask in crops:
        rows = (mask != VOID).any(axis=1).sum()
        green = image[:rows, (mask[0] != VOID).argmax(), 1]  # down a column of the image
        scales.append(2 * 100 / 64 / np.polyfit(np.arange(2, rows - 2), green[2:-2], 1)[0])
        if rows < 64:
            assert rows == pytest.approx(64 * scales[-1], abs=1)
    assert 0.49 < min(scales) < 0.52 and 1.95 < max(scales) < 2.03
    assert np.mean(scales) == pytest.approx(1.25, abs=0.08)


def test_image_and_mask_are_mirrored_alike_and_half_of_them(crops):
    mirrored = []
    for image, mask in crops:
        columns = (mask != VOID).any(axis=0)
        red, classes = image[0, columns, 0].astype(int), mask[0, columns]
        mirrored.append(red[-1] < red[0])
        assert (np.diff(red) <= 0).all() if mirrored[-1] else (np.diff(red) >= 0).all()
        assert ((red > 99.5) == (classes == 2)).sum() >= len(red) - 1  # but for the column on the border
    assert 120 < sum(mirrored) < 180
    lefts = {int(image[0, :, 0].min()) for image, mask in crops if not (mask == VOID).any()}
    assert len(lefts) > 50  # cut out at many places


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (300, 7)])
def test_images_of_any_shape_can_be_cropped(shape):
    image, mask = np.zeros((*shape, 3), np.uint8), np.ones(shape, np.uint8)
    for seed in range(20):
        image_crop, mask_crop = ANSWER.random_crop(image, mask, 32, np.random.default_rng(seed))
        assert image_crop.shape == (32, 32, 3) and mask_crop.shape == (32, 32) and (mask_crop == 1).any()


def test_images_are_normalised_as_those_of_imagenet():
    image = np.uint8([[[0, 0, 0], [255, 255, 255], [51, 102, 204]]])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = np.array([[-mean / std, (1 - mean) / std, ([0.2, 0.4, 0.8] - mean) / std]])
    assert ANSWER.normalise(image).dtype == np.float32
    assert ANSWER.normalise(image) == pytest.approx(expected, abs=1e-6)


# ---- samples and batches ----


def test_a_sample_is_the_same_in_whichever_order_it_is_asked_for(voc):
    samples = make_samples(voc)
    expected = [samples[i] for i in range(12)]
    again = make_samples(voc)
    for i in (7, 0, 11, 7, 3):
        assert same(again[i], expected[i])
    for image, mask in expected:
        assert image.shape == (32, 32, 3) and image.dtype == np.float32
        assert mask.shape == (32, 32) and mask.dtype == np.uint8 and mask.flags.c_contiguous
    assert len({image.tobytes() for image, _ in expected}) == 12  # of the 4 images, each time another crop


def test_another_seed_gives_other_samples(voc):
    one, other = make_samples(voc), make_samples(voc, seed=1)
    other.names = one.names  # so that it is the crops that differ
    assert not any(same(one[i], other[i]) for i in range(12))
    orders = {tuple(make_samples(voc, seed=seed).names) for seed in range(5)}
    assert len(orders) == 5


def test_each_epoch_takes_each_image_once_in_another_order(voc):
    samples = make_samples(voc, iterations=13)  # 39 samples: 9 epochs of 4 images, and 3
    assert len(samples) == len(samples.names) == 39
    epochs = [tuple(samples.names[i : i + 4]) for i in range(0, 39, 4)]
    assert all(sorted(epoch) == sorted(VOC_SIZES["train"]) for epoch in epochs[:9]) and len(set(epochs[9])) == 3
    assert len(set(epochs)) > 5


def test_the_centre_crop_has_no_chance_in_it(voc):
    samples, other = (make_samples(voc, crop="centre", seed=seed) for seed in (0, 1))
    for i in range(12):
        image, mask = ANSWER.centre_crop(*ANSWER.read_pair(voc / FOLDER, samples.names[i]), 32)
        assert same(samples[i], (ANSWER.normalise(image), mask))
        assert same(samples[i], other[other.names.index(samples.names[i])])


def test_batches_by_numpy_are_the_samples_in_order(voc):
    samples = make_samples(voc)
    batches = list(ANSWER.numpy_batches(samples, samples.options))
    assert len(batches) == 4
    for number, batch in enumerate(batches):
        images, masks = zip(*(samples[3 * number + i] for i in range(3)), strict=True)
        assert same(batch, (np.stack(images), np.stack(masks)))


# ---- measures ----


def test_pairs_are_counted_by_hand():
    truth, predicted = np.uint8([[0, 0, 1, 1], [1, VOID, 20, VOID]]), np.uint8([[0, 1, 1, 1], [20, 1, 20, 0]])
    expected = np.zeros((21, 21), int)
    expected[0, 0], expected[0, 1], expected[1, 1], expected[1, 20], expected[20, 20] = 1, 1, 2, 1, 1
    assert np.array_equal(ANSWER.count_pairs(truth, predicted), expected)
    assert np.array_equal(ANSWER.count_pairs(truth, truth * (truth != VOID)), np.diag([2, 3, *18 * [0], 1]))


def test_iou_leaves_out_void_and_classes_that_nobody_has_seen():
    truth, predicted = np.uint8([0, 0, 0, 0, 1, 1, VOID, VOID]), np.uint8([0, 0, 0, 1, 1, 2, 1, 5])
    measures = ANSWER.measure(ANSWER.count_pairs(truth, predicted))
    # background: 3 of 4; aeroplane: 1 of 3; bicycle, predicted but not there: 0 of 1; bus is predicted on void only.
    expected = dict.fromkeys(ANSWER.CLASSES) | {"background": 3 / 4, "aeroplane": 1 / 3, "bicycle": 0.0}
    assert measures["iou"] == pytest.approx(expected) and list(measures["iou"]) == list(ANSWER.CLASSES)
    assert measures["miou"] == pytest.approx((3 / 4 + 1 / 3) / 3)
    assert measures["pixel_accuracy"] == pytest.approx(4 / 6)


def test_what_a_centre_crop_costs_is_worked_out_by_hand():
    """Halved, each two columns of the crop become the second of them, and rows likewise.

    So column 1, an aeroplane, is all that is left of columns 0 and 1; the void pixel becomes background for its four.
    """
    mask = np.zeros((4, 8), np.uint8)
    mask[:, :2] = mask[:, 6:] = 9  # chairs beyond the crop
    mask[:, 3] = 1
    mask[1, 5] = VOID
    found = ANSWER.measure_crop([mask], 2)
    assert found["pixels_kept"] == 0.5
    assert found["miou_at_most"] == pytest.approx((7 / 11 + 4 / 8) / 2)
    found = ANSWER.measure_crop([mask, np.full((6, 6), 3, np.uint8)], 2)
    assert found["pixels_kept"] == 0.75
    assert found["miou_at_most"] == pytest.approx((7 / 11 + 4 / 8 + 1) / 3)  # over the pixels of both
    assert ANSWER.measure_crop([mask.T], 2)["pixels_kept"] == 0.5
    assert ANSWER.measure_crop([mask], 4) == {"pixels_kept": 0.5, "miou_at_most": 1.0}


def test_where_all_is_void_there_is_nothing_to_measure(capsys):
    pairs = ANSWER.count_pairs(np.full((2, 3), VOID, np.uint8), np.zeros((2, 3), np.uint8))
    line = stopped(capsys, ANSWER.measure, pairs)
    assert "--data: every pixel of val that is to be measured is void" in line


# ---- whole runs ----


@pytest.fixture(scope="module")
def expected(voc, tmp_path_factory):
    """The folder that PyTorch's answer has written to, run in this process without workers."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, ["answer", "--data", voc, "--out", out, "--workers", 0, *SMALL])))
        ANSWER.main()
    return out


def read_metrics(folder):
    return json.loads((folder / "metrics.json").read_text("utf-8"))


def test_shares_are_those_of_the_whole_masks(voc, expected):
    metrics = read_metrics(expected)
    assert metrics["images"] == {"train": 4, "val": 3} and metrics["same_batches"] is True
    for split, sizes in VOC_SIZES.items():
        masks = [ANSWER.read_mask(voc / FOLDER / "SegmentationClass" / f"{name}.png") for name in sizes]
        pixels = np.concatenate([mask.ravel() for mask in masks])
        shares = {name: (pixels == index).mean() for index, name in enumerate(ANSWER.CLASSES)}
        assert metrics["share"][split] == pytest.approx(shares | {"void": (pixels == VOID).mean()})
    assert metrics["centre_crop"] == pytest.approx(ANSWER.measure_crop(masks, 32))


def test_pictures_show_image_mask_and_both(voc, expected):
    for split, sizes in VOC_SIZES.items():
        shown = sorted((expected / "pictures" / split).iterdir())
        assert [path.stem for path in shown] == list(sizes)[:2]
        for path in shown:
            image, mask = ANSWER.centre_crop(*ANSWER.read_pair(voc / FOLDER, path.stem), 32)
            panels = np.split(np.array(Image.open(path))[::2, ::2], 3, axis=1)
            assert np.array_equal(panels[0], image) and np.array_equal(panels[1], ANSWER.COLOURS[mask])
            assert np.abs(panels[2] - (image / 2 + ANSWER.COLOURS[mask] / 2)).max() <= 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_framework_hands_out_the_batches_of_numpy(fork, voc, expected, tmp_path, framework, workers):
    script = ANSWERS["voc_dataset", framework]
    done = fork(script, "--data", voc, "--out", "out", "--workers", workers, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics, others = read_metrics(tmp_path / "out"), read_metrics(expected)
    assert metrics.pop("answer") == script.stem and others.pop("answer") == "01_voc_dataset_pytorch"
    assert metrics == others and metrics["same_batches"] is True


def test_batches_that_differ_are_told(voc, tmp_path, monkeypatch, capsys):
    to_numpy = ANSWER.to_numpy
    monkeypatch.setattr(sys, "argv", list(map(str, ["x", "--data", voc, "--out", tmp_path, "--workers", 0, *SMALL])))
    for change in (lambda images, masks: (images + 1e-4, masks), lambda images, masks: (images, masks.astype(int))):
        monkeypatch.setattr(ANSWER, "to_numpy", lambda *batch, change=change: change(*to_numpy(*batch)))
        ANSWER.main()
        assert read_metrics(tmp_path)["same_batches"] is False and "NOT THE SAME" in capsys.readouterr().out


def is_one_line(done, script, *words, status=2):
    """Return whether a run has ended with this status and one line on stderr with these words in it."""
    lines = [line for line in done.stderr.splitlines() if line and "%|" not in line]  # without progress bars
    assert done.returncode == status and len(lines) == 1, done.stderr
    return lines[0].startswith(f"{script.name}: ") and all(word in lines[0] for word in words)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_answer_copied_alone_asks_for_the_data(fork, tmp_path, framework):
    script = tmp_path / "some" / "where" / "else" / ANSWERS["voc_dataset", framework].name
    script.parent.mkdir(parents=True)
    shutil.copy(ANSWERS["voc_dataset", framework], script)
    done = fork(script, *SMALL, cwd=tmp_path)
    assert is_one_line(done, script, str(tmp_path / "some" / "Dataset" / "voc"), "VOCdevkit", "--data")
    assert not (tmp_path / "outputs").exists()


def test_a_missing_list_is_told(fork, tmp_path):
    script, path = ANSWERS["voc_dataset", "pytorch"], write_voc(tmp_path) / FOLDER / "ImageSets/Segmentation/val.txt"
    path.unlink()
    assert is_one_line(fork(script, "--data", tmp_path, *SMALL, cwd=tmp_path), script, str(path), "--data")
    assert not (tmp_path / "outputs").exists()


# ---- workers ----

# Takes two of many batches from an answer's draw_batches, and shows what is at work before and after it is closed.
CLOSE = """
import json, multiprocessing, runpy, sys, threading, time
from pathlib import Path
from types import SimpleNamespace
import numpy as np

path, voc, workers = sys.argv[1:]
answer = SimpleNamespace(**runpy.run_path(path, run_name="answer"))
options = dict(iterations=500, batch=3, size=32, seed=0, crop="random", workers=int(workers), device="cpu")
options, read = SimpleNamespace(**options), []
answer.set_up(options)

class Samples(answer.Samples):
    def __getitem__(self, number):
        read.append(number)
        time.sleep(0.02 * (number % 3 == 0))  # so that they are not ready in order
        return super().__getitem__(number)

def count_workers():
    names = [thread.name for thread in threading.enumerate()]
    return len(multiprocessing.active_children()), sorted(name for name in names if name != "MainThread")

folder = answer.find_voc(Path(voc))
samples = Samples(folder, answer.read_names(folder, "train"), options, np.random.default_rng(0))
batches = answer.draw_batches(samples, options)
for _, expected in zip(range(2), answer.numpy_batches(samples, options)):
    same = all((a == b).all() for a, b in zip(answer.to_numpy(*next(batches)), expected))
    assert same
during = count_workers()
batches.close()
time.sleep(0.3)
after, number = count_workers(), len(read)
time.sleep(0.3)
print(json.dumps([during, after, len(read) - number, number]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process made there would have to import CLOSE")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_nothing_goes_on_after_a_loop_is_left(fork, voc, tmp_path, framework, workers):
    path = ANSWERS["voc_dataset", framework]
    write(tmp_path / path.name, CLOSE.encode())
    done = fork(tmp_path / path.name, path, voc, workers, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (processes, threads), after, later, number = json.loads(done.stdout.splitlines()[-1])
    assert after == [0, []] and later == 0 and number < 100
    if not workers:
        assert processes == 0 and not threads
    elif framework in ("pytorch", "chainer"):
        assert processes == 2
    elif framework == "keras":
        assert len(threads) == 2  # those of tf.data are not Python's


# Sends what a terminal does, a signal to all processes of the group, when some batches have been drawn.
CTRL_C = """
import os, signal, threading, time
os.setsid()

def interrupt():
    while not any(b"batches" in part and b" 0/" not in part for part in open(err, "rb").read().split(b"\\r")):
        time.sleep(0.01)
    os.killpg(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups to send a signal to")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_ctrl_c_ends_workers_too_and_in_one_line(fork, voc, tmp_path, framework):
    script = ANSWERS["voc_dataset", framework]
    arguments = ["--data", voc, *SMALL, "--iterations", 100_000, "--workers", 2]
    done = fork(script, *arguments, cwd=tmp_path, before=CTRL_C)
    assert is_one_line(done, script, "interrupted", status=1)
