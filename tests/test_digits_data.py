"""The pictures of the digits, and the readers of MNIST and CIFAR-10, on data that the test makes."""

import builtins
import gzip
import os
import pickle
import shutil
from argparse import Namespace

import cv2
import numpy as np
import pytest
from conftest import SCRIPTS, encode_idx, load, pickle_batch, write, write_cifar, write_mnist

digits_dataset = load(next(script for script in SCRIPTS if script.stem == "digits_dataset_pytorch"))


def stopped(capsys, function, *arguments):
    """Return the one line in which a function ends."""
    with pytest.raises(SystemExit) as end:
        function(*arguments)
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1
    return printed


def random_pixels(number):
    return np.random.default_rng(number).integers(0, 256, (number, 3072), np.uint8)


# ---- the pictures ----


def test_a_digit_is_added_and_clipped_and_its_mask_is_where_it_is_strong():
    digit = np.linspace(0, 1, 14 * 14, dtype=np.float32).reshape(1, 14, 14)
    photographs = np.full((1, 40, 50, 3), (0, 100, 200), np.uint8)
    images, masks = digits_dataset.make_pictures(digit, photographs, 50, np.random.default_rng(0))
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
    images, masks = digits_dataset.make_pictures(digits, photographs, 7220, np.random.default_rng(0))
    rows, columns = (masks[..., 0].any(axis=axis).argmax(axis=1) for axis in (2, 1))
    counts = np.bincount(19 * rows + columns, minlength=361)  # 20 of each place in the mean
    assert len(counts) == 361 and counts.min() > 0
    assert 250 < ((counts - 20) ** 2 / 20).sum() < 500  # chi squared, 360 degrees of freedom
    for values in (images.max(axis=(1, 2, 3)), images.min(axis=(1, 2, 3))):
        found, numbers = np.unique(values.round(4), return_counts=True)
        assert len(found) in (2, 6) and numbers.min() > 7220 / len(found) * 0.8


def test_batches_are_fresh_and_the_seed_decides_them():
    data = digits_dataset.load_data(Namespace(mnist=None, cifar=None))
    options = Namespace(iterations=3, batch=4)
    first, again = (list(digits_dataset.draw_batches(*data["train"], options, np.random.default_rng(7))) for _ in "ab")
    assert len(first) == 3 and first[0][0].shape == (4, 32, 32, 3) and first[0][1].shape == (4, 32, 32, 1)
    for one, other in zip(first, again, strict=True):
        assert all(map(np.array_equal, one, other))
    assert len(np.unique(np.concatenate([images for images, _ in first]).reshape(12, -1), axis=0)) == 12


def test_each_picture_is_normalised_for_itself():
    images = np.float32(np.random.default_rng(0).random((3, 32, 32, 3)))
    images[1] *= 0.01
    images[2] = 1  # a digit over white does not show
    normalised = digits_dataset.normalise(images)
    assert normalised.dtype == np.float32
    assert normalised.mean(axis=(1, 2, 3)) == pytest.approx([0, 0, 0], abs=1e-4)
    assert normalised.std(axis=(1, 2, 3)) == pytest.approx([1, 1, 0], abs=1e-4)


def test_training_and_test_share_no_digit_and_no_background():
    data = digits_dataset.load_data(Namespace(mnist=None, cifar=None))
    digits, photographs = zip(*(data[part] for part in ("train", "test")), strict=True)
    assert [len(array) for array in digits] == [1078, 719]  # 60 : 40
    assert [array.shape for array in photographs] == [(2, 427, 384, 3), (2, 427, 256, 3)]
    whole = digits_dataset.datasets.load_sample_images().images
    assert np.array_equal(np.concatenate(photographs, axis=2), np.stack(whole))
    assert digits[0].shape[1:] == (14, 14) and digits[0].dtype == np.float32
    assert 0 <= min(array.min() for array in digits) and 0.9 < max(array.max() for array in digits) <= 1


def test_real_data_are_dealt_out_sixty_to_forty(made):
    data = digits_dataset.load_data(Namespace(mnist=made["--mnist"], cifar=made["--cifar"]))
    assert [len(array) for array in data["train"]] == [6, 4]
    assert [len(array) for array in data["test"]] == [4, 4]
    images, masks = digits_dataset.make_pictures(*data["test"], 5, np.random.default_rng(0))
    assert images.shape == (5, 32, 32, 3) and masks.any(axis=(1, 2, 3)).all()


# ---- MNIST ----


def test_digits_are_read_from_either_spelling_packed_or_not(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (10, 28, 28), np.uint8)
    data = encode_idx(pictures)
    expected = pictures.reshape(10, 14, 2, 14, 2).mean(axis=(2, 4)) / 255
    for dot in "-.":
        for end, content in (("", data), (".gz", gzip.compress(data))):
            for part in ("train", "t10k"):
                folder = tmp_path / f"{part}{dot}{end}"
                path = folder / "MNIST/raw" / f"{part}-images{dot}idx3-ubyte{end}"
                write(path, content)
                assert np.array_equal(digits_dataset.read_idx(path), pictures)
                assert digits_dataset.load_digits(folder) == pytest.approx(expected, abs=2e-3)


def test_a_digit_file_that_is_there_twice_is_read_once(tmp_path):
    write_mnist(tmp_path)
    packed = tmp_path / "raw/train-images-idx3-ubyte.gz"
    write(tmp_path / "train-images-idx3-ubyte", gzip.decompress(packed.read_bytes()))
    assert len(digits_dataset.load_digits(tmp_path)) == 10


DAMAGE = {
    "magic": (lambda data: b"\0\0\x08\x01" + data[4:], "begins with 0x801"),
    "short": (lambda data: data[:-1], "bytes"),
    "long": (lambda data: data + b"\0", "bytes"),
    "head": (lambda data: data[:7], "bytes"),
    "nothing": (lambda data: b"", "begins with 0x0"),
    "no pictures": (lambda data: b"\0\0\x08\x03" + bytes(12), "bytes"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_digit_file_is_told_in_one_line(tmp_path, capsys, kind):
    change, said = DAMAGE[kind]
    path = tmp_path / "train-images-idx3-ubyte"
    write(path, change(encode_idx(np.ones((3, 28, 28), np.uint8))))
    line = stopped(capsys, digits_dataset.load_digits, tmp_path)
    assert str(path) in line and said in line


@pytest.mark.parametrize("cut", [0, 5, 200, -1])
def test_a_cut_off_packed_file_is_told_in_one_line(tmp_path, capsys, cut):
    path = tmp_path / "t10k-images.idx3-ubyte.gz"
    noise = np.random.default_rng(0).integers(0, 256, (9, 28, 28), np.uint8)
    write(path, gzip.compress(encode_idx(noise))[:cut])
    assert str(path) in stopped(capsys, digits_dataset.load_digits, tmp_path)


@pytest.mark.parametrize("option, function", [("--mnist", "load_digits"), ("--cifar", "load_photographs")])
def test_a_folder_without_the_files_is_told_in_one_line(tmp_path, capsys, option, function):
    for folder, said in ((tmp_path, "in it"), (tmp_path / "nowhere", "no such folder")):
        line = stopped(capsys, getattr(digits_dataset, function), folder)
        assert f"{option} {folder}: no" in line and said in line and "download_digits.py" in line


# ---- CIFAR-10 ----


def test_the_pickle_of_the_tests_is_one_that_numpy_reads():
    pixels = random_pixels(3)
    batch = pickle.loads(pickle_batch(pixels), encoding="bytes")
    assert batch.keys() == {b"batch_label", b"labels", b"data", b"filenames"}
    assert np.array_equal(batch[b"data"], pixels) and len(batch[b"labels"]) == len(batch[b"filenames"]) == 3


def test_both_versions_give_the_same_pictures(tmp_path):
    pixels = random_pixels(4)
    write(tmp_path / "test_batch.bin", np.hstack([np.uint8([[0], [9], [3], [4]]), pixels]).tobytes())
    write(tmp_path / "test_batch", pickle_batch(pixels))
    pictures = [digits_dataset.read_cifar(tmp_path / name) for name in ("test_batch.bin", "test_batch")]
    assert np.array_equal(*pictures) and pictures[0].shape == (4, 32, 32, 3)
    for channel in range(3):  # red, green and blue, each row by row
        assert np.array_equal(pictures[0][2, ..., channel].ravel(), pixels[2, 1024 * channel :][:1024])
    assert len(digits_dataset.load_photographs(tmp_path)) == 4  # once, though it is there in both versions


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_that_python_3_pickled_again_is_read(tmp_path, protocol):
    pixels = random_pixels(2)
    for array in (pixels, np.asfortranarray(pixels)):
        write(tmp_path / "data_batch_3", pickle.dumps({b"data": array, b"labels": [1, 2]}, protocol))
        expected = pixels.reshape(2, 3, 32, 32).transpose(0, 2, 3, 1)
        assert np.array_equal(digits_dataset.read_cifar(tmp_path / "data_batch_3"), expected)


class Hostile:
    """Is pickled as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "function", [os.mkdir, builtins.exec, shutil.rmtree, getattr, np.load], ids=lambda function: function.__name__
)
def test_a_hostile_pickle_does_nothing_but_earn_an_error(tmp_path, capsys, function, protocol):
    target, kept = tmp_path / "hostile", tmp_path / "kept"
    kept.mkdir()
    arguments = {os.mkdir: [str(target)], builtins.exec: [f"import os; os.mkdir({str(target)!r})"]}
    hostile = Hostile(function, *arguments.get(function, [str(kept)]))
    path = tmp_path / "test_batch"
    for content in (hostile, {b"data": hostile}, {b"labels": [3, hostile], b"data": random_pixels(2)}):
        write(path, pickle.dumps(content, protocol))
        line = stopped(capsys, digits_dataset.read_cifar, path)
        assert str(path) in line and function.__name__ in line
        assert kept.exists() and not target.exists()
    write(path, pickle.dumps(Hostile(os.mkdir, str(target)), protocol))
    pickle.loads(path.read_bytes())
    assert target.exists()  # what it would have done


def test_what_a_batch_may_name_is_not_called_either(tmp_path, capsys):
    """A pickle may name NumPy's array and dtype; neither is made: no array of Python objects, none of a huge size."""
    for content in (np.array([{}, []], object), np.zeros((2, 3072)), np.dtype("u1"), np.zeros((2, 99), np.uint8)):
        write(tmp_path / "test_batch", pickle.dumps({b"data": content}, 2))
        assert "not a whole batch" in stopped(capsys, digits_dataset.read_cifar, tmp_path / "test_batch")
    huge = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ftU\x01btR."
    write(tmp_path / "test_batch", b"\x80\x02" + huge)
    stopped(capsys, digits_dataset.read_cifar, tmp_path / "test_batch")


def test_a_damaged_batch_is_told_in_one_line(tmp_path, capsys):
    pixels = random_pixels(3)
    records = np.hstack([np.uint8([[0], [1], [2]]), pixels]).tobytes()
    wrong = {
        "data_batch_1.bin": [records[:-1], records + b"\0", b"", b"\x0a" + records[1:]],
        "data_batch_2": [pickle_batch(pixels)[:cut] for cut in (0, 1, 50, 5000, -1)]
        + [pickle.dumps(content) for content in ({}, [], 5, {b"data": b"bytes"}, {b"data": None})]
        + [b"a text, by name a batch\n", gzip.compress(pickle_batch(pixels))],
    }
    for name, contents in wrong.items():
        for content in contents:
            write(tmp_path / name, content)
            line = stopped(capsys, digits_dataset.load_photographs, tmp_path)
            assert str(tmp_path / name) in line and "not a whole batch of CIFAR-10" in line
        (tmp_path / name).unlink()


def test_one_picture_alone_cannot_be_dealt_out(tmp_path, capsys):
    write(tmp_path / "train-images-idx3-ubyte", encode_idx(np.ones((1, 28, 28), np.uint8)))
    write(tmp_path / "data_batch_1", pickle_batch(random_pixels(1)))
    for mnist, cifar, option in ((tmp_path, None, "--mnist"), (None, tmp_path, "--cifar")):
        line = stopped(capsys, digits_dataset.load_data, Namespace(mnist=mnist, cifar=cifar))
        assert f"{option} {tmp_path}" in line


def test_small_and_large_digits_become_fourteen_pixels(tmp_path):
    for side in (7, 14, 56):
        pictures = np.zeros((2, side, side), np.uint8)
        pictures[:, : side // 2] = 255
        write(tmp_path / "train-images-idx3-ubyte", encode_idx(pictures))
        (digit, _) = digits_dataset.load_digits(tmp_path)
        assert digit.shape == (14, 14) and digit[0] == pytest.approx(1) and digit[-1] == pytest.approx(0)
        assert digit.mean() == pytest.approx(pictures.mean() / 255, abs=0.02)


def test_photographs_keep_their_colours(tmp_path):
    write_cifar(tmp_path)
    photographs = digits_dataset.load_photographs(tmp_path)
    assert photographs.shape == (8, 32, 32, 3)
    # One colour with noise: a mix-up of channels and places would show in how much neighbours differ.
    blurred = np.stack([cv2.blur(photograph, (9, 9)) for photograph in photographs])
    assert np.abs(photographs.astype(int) - blurred).max() < 45
