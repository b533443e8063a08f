"""The images of the digits and the file that they can be made of, on data that the test makes."""

import io
import zipfile
from argparse import Namespace

import numpy as np
import pytest
from exercises import answer_path, load_answer

answer = load_answer(answer_path("digits_dataset", "pytorch"))
DEFAULT = Namespace(data=None)


def write_data(path, **changes):
    """Write a .npz file with 5 digits and 6 photographs, or with other arrays; None leaves one out."""
    rng = np.random.default_rng(0)
    arrays = {"digits": rng.integers(0, 256, (5, 28, 28), np.uint8)}
    arrays |= {"photographs": rng.integers(0, 256, (6, 32, 40, 3), np.uint8)} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return Namespace(data=path)


def stopped(capsys, options):
    """Return the one line in which load_data ends; it names the option and the file."""
    with pytest.raises(SystemExit) as end:
        answer.load_data(options)
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1 and f"--data {options.data}: " in printed
    return printed


# ---- the images ----


def test_a_digit_is_added_and_clipped_and_its_mask_is_where_it_is_strong():
    digit = np.linspace(0, 1, 14 * 14, dtype=np.float32).reshape(1, 14, 14)
    photographs = np.full((1, 40, 50, 3), (0, 100, 200), np.uint8)
    images, masks = answer.make_pictures(digit, photographs, 50, np.random.default_rng(0))
    assert images.dtype == np.float32 and masks.dtype == np.uint8
    for image, mask in zip(images, masks, strict=True):
        rows, columns = np.nonzero(mask[..., 0])
        assert rows.max() - rows.min() < 14 and columns.max() - columns.min() == 13
        top, left = rows.max() - 13, columns.min()
        window = np.s_[top : top + 14, left : left + 14]
        expected = np.full((32, 32, 3), (0, 100, 200), np.float32)
        expected[window] = np.minimum(expected[window] + 200 * digit[0][..., None], 255)
        assert image == pytest.approx(expected / 255, abs=1e-6)
        assert np.array_equal(mask[window][..., 0] == 1, digit[0] > 0.3) and mask.sum() == (digit > 0.3).sum()


def test_every_place_is_as_likely_and_every_digit_and_photograph_is_used():
    digits = np.ones((3, 14, 14), np.float32) * np.float32([0.4, 0.6, 0.8])[:, None, None]
    photographs = np.zeros((2, 32, 32, 3), np.uint8)
    photographs[1] = 20
    images, masks = answer.make_pictures(digits, photographs, 7220, np.random.default_rng(0))
    rows, columns = (masks[..., 0].any(axis=axis).argmax(axis=1) for axis in (2, 1))
    counts = np.bincount(19 * rows + columns, minlength=361)  # 20 of each place in the mean
    assert len(counts) == 361 and counts.min() > 0
    assert 250 < ((counts - 20) ** 2 / 20).sum() < 500  # chi squared, 360 degrees of freedom
    for values in (images.max(axis=(1, 2, 3)), images.min(axis=(1, 2, 3))):
        found, numbers = np.unique(values.round(4), return_counts=True)
        assert len(found) in (2, 6) and numbers.min() > 7220 / len(found) * 0.8


def test_patches_come_from_all_over_a_photograph():
    rows, columns = np.mgrid[:40, :50].astype(np.uint8)
    photographs = np.stack([rows, columns, rows], axis=2)[None]  # whose pixels tell where they are
    images, _ = answer.make_pictures(np.zeros((1, 14, 14)), photographs, 2000, np.random.default_rng(0))
    corners = (255 * images[:, 0, 0, :2]).round().astype(int)
    assert len(np.unique(corners, axis=0)) == 9 * 19  # every one that fits
    patch = np.stack([rows[:32, :32], columns[:32, :32]], axis=2)
    assert np.abs(255 * images[..., :2] - corners[:, None, None] - patch).max() < 1e-3


def test_batches_are_fresh_and_the_seed_decides_them():
    data = answer.load_data(DEFAULT)["train"]
    options = Namespace(iterations=3, batch=4)
    first, again = (list(answer.draw_batches(*data, options, np.random.default_rng(7))) for _ in "ab")
    assert len(first) == 3 and first[0][0].shape == (4, 32, 32, 3) and first[0][1].shape == (4, 32, 32, 1)
    for one, other in zip(first, again, strict=True):
        assert all(map(np.array_equal, one, other))
    assert len(np.unique(np.concatenate([images for images, _ in first]).reshape(12, -1), axis=0)) == 12


def test_each_image_is_normalised_for_itself():
    images = np.float32(np.random.default_rng(0).random((3, 32, 32, 3)) * [0.9, 0.5, 0.2])
    images[1] *= 0.01
    images[2] = 1  # a digit over white does not show
    normalised = answer.normalise(images)
    assert normalised.dtype == np.float32
    assert normalised.mean(axis=(1, 2, 3)) == pytest.approx([0, 0, 0], abs=1e-4)
    assert normalised.std(axis=(1, 2, 3)) == pytest.approx([1, 1, 0], abs=1e-4)
    for image, each in zip(images[:2], normalised[:2], strict=True):  # all three colours alike
        assert each == pytest.approx((image - image.mean()) / image.std(), abs=1e-4)


def test_training_and_test_share_no_digit_and_no_background():
    data = answer.load_data(DEFAULT)
    digits, photographs = zip(*(data[part] for part in ("train", "test")), strict=True)
    assert [len(array) for array in digits] == [1078, 719]  # 60 : 40
    assert [array.shape for array in photographs] == [(2, 427, 384, 3), (2, 427, 256, 3)]
    whole = answer.datasets.load_sample_images().images
    assert np.array_equal(np.concatenate(photographs, axis=2), np.stack(whole))
    assert digits[0].shape[1:] == (14, 14) and digits[0].dtype == np.float32
    assert 0 <= min(array.min() for array in digits) and 0.9 < max(array.max() for array in digits) <= 1


def test_double_precision_changes_the_type_and_hardly_the_numbers():
    single = answer.load_data(DEFAULT)["test"]
    copy = load_answer(answer.__file__)
    copy.FLOAT = "float64"
    double = copy.load_data(DEFAULT)["test"]
    assert double[0].dtype == np.float64 and double[0] == pytest.approx(single[0], abs=1e-6)
    batches = []
    for module, data in ((answer, single), (copy, double)):
        rng = np.random.default_rng(0)
        batches.append(next(module.draw_batches(*data, Namespace(iterations=1, batch=3), rng)))
    assert batches[1][0].dtype == np.float64 and batches[1][0] == pytest.approx(batches[0][0], abs=1e-4)
    assert np.array_equal(batches[0][1], batches[1][1])


# ---- a file of one's own ----


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_is_dealt_out_sixty_to_forty(tmp_path, save):
    digits = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    photographs = np.random.default_rng(1).integers(0, 256, (6, 32, 40, 3), np.uint8)
    save(tmp_path / "own.npz", digits=digits, photographs=photographs)
    data = answer.load_data(Namespace(data=tmp_path / "own.npz"))
    assert [len(array) for array in data["train"]] == [3, 3] and [len(array) for array in data["test"]] == [2, 3]
    assert np.array_equal(np.concatenate([data[part][1] for part in data]), photographs)
    shrunk = digits.reshape(5, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    assert np.concatenate([data[part][0] for part in data]) == pytest.approx(shrunk, abs=1e-5)
    images, masks = answer.make_pictures(*data["test"], 5, np.random.default_rng(0))
    assert images.shape == (5, 32, 32, 3) and masks.any(axis=(1, 2, 3)).all()


def test_small_and_large_digits_become_fourteen_pixels(tmp_path):
    for side in (7, 14, 56):
        digits = np.zeros((2, side, side), np.uint8)
        digits[:, : side // 2] = 255
        data = answer.load_data(write_data(tmp_path / "own.npz", digits=digits))
        ((digit,), _), _ = data.values()
        assert digit.shape == (14, 14) and digit[0] == pytest.approx(1) and digit[-1] == pytest.approx(0)
        assert digit.mean() == pytest.approx(digits.mean() / 255, abs=0.02)


def test_small_digits_are_enlarged_smoothly(tmp_path):
    """Of 8 pixels to 14: a slope stays a slope, where whole pixels would make steps."""
    digits = np.tile(np.uint8(30 * np.arange(8)), (2, 8, 1))
    data = answer.load_data(write_data(tmp_path / "own.npz", digits=digits))
    row = data["train"][0][0][7]
    places = np.clip((np.arange(14) + 0.5) * 8 / 14 - 0.5, 0, 7)  # of the new pixels' middles among the old
    assert row == pytest.approx(30 * places / 255, abs=1e-4)


@pytest.mark.parametrize(
    "name, array",
    [
        ("digits", np.zeros((5, 28, 28))),
        ("digits", np.zeros((5, 28, 28), np.int8)),
        ("digits", np.zeros((5, 784), np.uint8)),
        ("digits", np.zeros((5, 28, 28, 1), np.uint8)),
        ("digits", np.zeros((1, 28, 28), np.uint8)),
        ("digits", np.zeros((5, 0, 28), np.uint8)),
        ("digits", np.uint8(3)),
        ("photographs", np.zeros((6, 32, 32), np.uint8)),
        ("photographs", np.zeros((6, 3, 32, 32), np.uint8)),
        ("photographs", np.zeros((6, 32, 32, 4), np.uint8)),
        ("photographs", np.zeros((6, 32, 32, 3, 1), np.uint8)),
        ("photographs", np.zeros((6, 31, 32, 3), np.uint8)),
        ("photographs", np.zeros((1, 32, 32, 3), np.uint8)),
        ("photographs", np.zeros((6, 32, 32, 3), np.float32)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.shape} {value.dtype}",
)
def test_an_array_of_the_wrong_shape_or_type_is_told_in_one_line(tmp_path, capsys, name, array):
    line = stopped(capsys, write_data(tmp_path / "own.npz", **{name: array}))
    assert f"{name} {array.shape} {array.dtype}" in line and "uint8" in line


def test_a_file_that_is_missing_or_none_is_told_in_one_line(tmp_path, capsys):
    assert "no such file" in stopped(capsys, Namespace(data=tmp_path / "nowhere.npz"))
    whole = tmp_path / "whole.npz"
    write_data(whole)
    single = io.BytesIO()
    np.save(single, np.zeros((5, 28, 28), np.uint8))
    wrong = {
        "empty": b"",
        "text": b"no arrays\n",
        "cut": whole.read_bytes()[:-40],
        "half": whole.read_bytes()[: whole.stat().st_size // 2],
        "one array": single.getvalue(),
        "changed": whole.read_bytes().replace(b"digits.npy", b"others.npy"),
    }
    damaged = bytearray(whole.read_bytes())
    damaged[2000] ^= 1  # in the middle of the digits: the sum in the archive is no longer right
    for name, data in (wrong | {"damaged": bytes(damaged)}).items():
        (tmp_path / name).write_bytes(data)
        line = stopped(capsys, Namespace(data=tmp_path / name))
        assert "not a whole .npz file" in line and "download_digits.py" in line, name
    for name in ("digits", "photographs"):
        assert "not a whole .npz file" in stopped(capsys, write_data(tmp_path / "own.npz", **{name: None}))
    assert "not a whole .npz file" in stopped(capsys, Namespace(data=tmp_path))  # a folder


class Hostile:
    """Is pickled as a call."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return __import__("os").mkdir, (str(self.folder),)


def test_no_pickle_is_read(tmp_path, capsys):
    objects = np.array([Hostile(tmp_path / "hostile")] * 2, object)
    for name in ("digits", "photographs"):
        options = write_data(tmp_path / "own.npz", **{name: objects})
        with zipfile.ZipFile(options.data) as archive:
            assert b"mkdir" in archive.read(f"{name}.npy")
        assert "not a whole .npz file" in stopped(capsys, options)
    assert not (tmp_path / "hostile").exists()
