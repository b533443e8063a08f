"""The pieces that all answers share: compared with values worked out by hand, or with another way to find them.

tools/copies.py keeps them equal in all answers, so each is tested in one.
"""

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import AKAHARA, EXERCISES, MADARA, encode, pytorch, write
from PIL import Image
from sklearn.metrics import accuracy_score, jaccard_score

TRAINED = [name for name, exercise in EXERCISES.items() if exercise.trains and exercise.subject == "semaseg"]
TESTED = [name for name in TRAINED if EXERCISES[name].predicts]
SIZE = 40


# ---- reading ----


def write_pair(folder, image, mask, name="newt", suffix=".png"):
    """Write an image and its mask, (height, width, 3) uint8, into a data folder."""
    write(folder / "images" / f"{name}{suffix}", encode(suffix, np.uint8(image)))
    write(folder / "seg_images" / f"{name}.png", encode(".png", np.uint8(mask)))
    return folder


@pytest.mark.parametrize("exercise", ["bin_test", "semaseg_test", "unet"])
def test_red_is_the_first_channel_and_127_and_128_are_one_colour(tmp_path, exercise):
    answer, (size, inner) = pytorch(exercise), (204, 20) if exercise == "unet" else (20, 20)
    for name, red in (("a", 127), ("b", 128)):
        mask = np.zeros((16, 16, 3))
        mask[:8], mask[8:, 8:] = (red, 0, 0), (0, red, 0)
        write_pair(tmp_path, np.full((16, 16, 3), (255, 0, 51)), mask, name)
    names, images, targets = answer.load_newts(tmp_path, size)
    assert names == ["a", "b"] and images.shape == (2, size, size, 3) and targets.shape == (2, inner, inner)
    assert images.dtype == np.float32 and targets.dtype == np.uint8
    assert np.abs(images - np.float32([1, -1, -0.6])).max() < 1e-6
    expected = np.zeros((inner, inner))
    expected[:10], expected[10:, 10:] = 1, 1 if exercise == "bin_test" else 2
    assert np.array_equal(targets[0], expected) and np.array_equal(targets[1], expected)


def test_images_are_averaged_and_masks_take_the_pixel_under_the_middle(tmp_path):
    rng = np.random.default_rng(0)
    image, classes = rng.integers(0, 256, (24, 36, 3)), rng.integers(0, 3, (24, 36))
    write_pair(tmp_path, image, np.array([(0, 0, 0), AKAHARA, MADARA])[classes])
    _, images, targets = pytorch("concat").load_newts(tmp_path, 12)
    means = image.reshape(12, 2, 12, 3, 3).mean(axis=(1, 3))
    assert np.abs(127.5 * (images[0] + 1) - means).max() <= 0.51  # rounded to integers
    # The middle of new pixel i lies 2 x (i + 0.5) and 3 x (i + 0.5) old pixels from the edge.
    rows, columns = np.arange(12) * 2 + 1, np.arange(12) * 3 + 1
    assert np.array_equal(targets[0], classes[rows][:, columns])


def test_unet_sees_the_mirrored_surroundings_of_what_it_predicts(tmp_path):
    rng = np.random.default_rng(0)
    image, classes = rng.integers(0, 256, (52, 52, 3)), rng.integers(0, 3, (52, 52))
    write_pair(tmp_path, image, np.array([(0, 0, 0), AKAHARA, MADARA])[classes])
    _, images, targets = pytorch("unet").load_newts(tmp_path, 236)
    outer = 127.5 * (images[0] + 1)
    assert outer.shape == (236, 236, 3) and np.array_equal(targets[0], classes)
    assert np.abs(outer[92:-92, 92:-92] - image).max() < 1e-3
    for i in range(1, 93):  # the edge itself is not doubled; 52 pixels are mirrored there and back
        mirrored = 51 - abs(51 - i % 102)
        assert np.abs(outer[92 - i, 92:-92] - image[mirrored]).max() < 1e-3
        assert np.abs(outer[92:-92, 143 + i] - image[:, 51 - mirrored]).max() < 1e-3


def save_turned(path, image, orientation):
    """Write an image as its camera would that notes in EXIF how it was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, exif=exif, quality=95)


def test_kinds_of_files(tmp_path):
    """Grey, palette, turned and CMYK images, and images and masks with a palette or an opaque alpha."""
    picture, mask = np.full((16, 16, 3), 60, np.uint8), np.zeros((16, 16, 3), np.uint8)
    picture[:8], mask[:8] = (200, 40, 40), AKAHARA
    images, masks = tmp_path / "images", tmp_path / "seg_images"
    for name in ("grey", "palette", "opaque", "turned", "cmyk", "jpeg"):
        write_pair(tmp_path, picture, mask, name)
    write(images / "grey.png", encode(".png", picture[..., :1]))
    Image.fromarray(picture).quantize(4).save(images / "palette.png")
    Image.fromarray(np.dstack([picture, np.full((16, 16), 255, np.uint8)])).save(images / "opaque.png")
    Image.fromarray(mask).quantize(4).save(masks / "palette.png")
    Image.fromarray(np.dstack([mask, np.full((16, 16), 255, np.uint8)])).save(masks / "opaque.png")
    for name in ("turned", "cmyk", "jpeg"):
        (images / f"{name}.png").unlink()
    save_turned(images / "turned.jpg", np.rot90(picture), 6)  # 6: the camera was held so that its right is up
    Image.fromarray(picture).convert("CMYK").save(images / "cmyk.jpg", quality=95)
    write(images / "jpeg.jpeg", encode(".jpg", picture, cv2.IMWRITE_JPEG_QUALITY, 95) + b"\0\0\0\x18ftypmp42")
    names, arrays, targets = pytorch("semaseg_test").load_newts(tmp_path, 16)
    assert names == ["cmyk", "grey", "jpeg", "opaque", "palette", "turned"]
    for name, array, target in zip(names, 127.5 * (arrays + 1), targets, strict=True):
        assert np.array_equal(target, mask[..., 0] > 0), name
        wanted = picture[..., :1] if name == "grey" else picture
        assert np.abs(array[[2, 13]] - wanted[[2, 13]]).max() < 12, name  # away from the edge, where JPEG is soft


# ---- augmentation ----


def transform(kind, rng):
    """Return what augment makes of an image of coordinates (SIZE, SIZE, 3) and of two targets, of x and of y."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.stack([x, y, x + y], axis=2).astype(np.float32)
    state, changed = rng.bit_generator.state, []
    for target in (x, y):
        rng.bit_generator.state = state
        changed.append(pytorch("unetlike").augment(image, np.uint8(target), kind, rng))
    (image, x), (again, y) = changed
    assert np.array_equal(image, again) and x.dtype == y.dtype == np.uint8
    return image, x, y


def find_matrix(image):
    """Return the linear part, (2, 2), of a transform of an image of coordinates, and where its middle comes from."""
    half = SIZE // 2
    middle = image[half - 1 : half + 1, half - 1 : half + 1, :2].astype(float)
    gradient = [middle[:, 1] - middle[:, 0], middle[1] - middle[0]]
    return np.stack([part.mean(axis=0) for part in gradient], axis=1), middle.mean(axis=(0, 1))


@pytest.mark.parametrize("kind", ["affine", "flips", "none"])
def test_an_image_and_its_mask_stay_aligned(kind):
    """Each pixel of the mask comes from the pixel nearest to the place in the image from which the image's comes."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        image, *targets = transform(kind, rng)
        for channel, target in enumerate(targets):
            # Half a pixel off where the nearest neighbour rounds most, and a little, as OpenCV counts in 32nds.
            assert np.abs(image[..., channel] - target).max() < 0.57


def test_a_mask_is_not_blended_and_an_image_is():
    """Between classes 0 and 2 lies no class 1."""
    rng, counts = np.random.default_rng(0), []
    target = np.zeros((SIZE, SIZE), np.uint8)
    target[10:25, 5:30] = 2
    image = np.float32(target[..., None].repeat(3, axis=2))
    for _ in range(40):
        changed, mask = pytorch("unetlike").augment(image, target, "affine", rng)
        assert set(np.unique(mask)) <= {0, 2}
        counts.append(len(np.unique(changed)))
    assert max(counts) > 10


def test_none_does_nothing_and_draws_nothing():
    rng = np.random.default_rng(0)
    image, target = np.float32(rng.random((8, 8, 3))), np.uint8(rng.integers(0, 3, (8, 8)))
    before = rng.bit_generator.state
    changed = pytorch("unetlike").augment(image.copy(), target.copy(), "none", rng)
    assert np.array_equal(changed[0], image) and np.array_equal(changed[1], target)
    assert rng.bit_generator.state == before


def test_flips_are_the_four_each_as_often():
    rng, counts = np.random.default_rng(0), {}
    y, x = np.mgrid[:SIZE, :SIZE]
    for _ in range(400):
        image, columns, rows = transform("flips", rng)
        right, down = bool(columns[0, 0]), bool(rows[0, 0])
        assert np.array_equal(columns, x[:, ::-1] if right else x) and np.array_equal(rows, y[::-1] if down else y)
        assert np.array_equal(image[..., :2], np.stack([columns, rows], axis=2))
        counts[right, down] = counts.get((right, down), 0) + 1
    assert len(counts) == 4 and min(counts.values()) > 70  # 100 +- 9


def test_affine_rotates_scales_and_shifts_a_quarter_of_them():
    rng, angles, scales, shifts = np.random.default_rng(0), [], [], []
    for _ in range(1200):
        matrix, origin = find_matrix(transform("affine", rng)[0])
        if np.allclose(np.abs(matrix), np.eye(2)):
            assert origin == pytest.approx([(SIZE - 1) / 2] * 2)
            continue
        scale = abs(np.linalg.det(matrix)) ** -0.5  # of what is seen; the matrix tells where each pixel comes from
        assert scale * matrix @ matrix.T * scale == pytest.approx(np.eye(2), abs=0.15)  # no shear; a flip perhaps
        angles.append(math.atan2(matrix[1, 0], matrix[0, 0]) / math.pi)
        scales.append(math.log(scale, 1.35))
        # The middle of the image is moved by the shift, so what is in the middle now was a shift away, turned back.
        shifts.append(np.linalg.norm(scale * (origin - (SIZE - 1) / 2)) / SIZE)
    assert 250 < len(scales) < 350
    for values in (angles, scales):  # even over the whole range
        assert -1.1 < np.min(values) < -0.9 and 0.9 < np.max(values) < 1.1
        assert np.mean(values) == pytest.approx(0, abs=0.12) and np.std(values) == pytest.approx(3**-0.5, abs=0.06)
    # The mean distance of a point in a square of half side 0.1 from its middle is 0.0765.
    assert 0.1 < max(shifts) < 0.1 * 2**0.5 + 0.01 and np.mean(shifts) == pytest.approx(0.0765, abs=0.01)


def test_what_comes_in_from_outside_is_mirrored():
    """About the outermost pixels, which are not doubled: each place outside shows the one as far inside."""
    rng, outside = np.random.default_rng(0), 0
    places = np.stack(np.mgrid[:SIZE, :SIZE][::-1], axis=2) - (SIZE - 1) / 2  # from the middle, x and y
    middle = np.s_[SIZE // 2 - 5 : SIZE // 2 + 5, SIZE // 2 - 5 : SIZE // 2 + 5]
    for _ in range(100):
        image = transform("affine", rng)[0][..., :2]
        # Where each pixel comes from, as the pixels about the middle tell, which come from inside.
        known = np.column_stack([places[middle].reshape(-1, 2), np.ones(100)])
        matrix = np.linalg.lstsq(known, image[middle].reshape(-1, 2), rcond=None)[0]
        source = np.dstack([places, np.ones((SIZE, SIZE))]) @ matrix
        outside += np.sum((source < -1) | (source > SIZE))
        assert np.abs(image - (SIZE - 1 - abs(SIZE - 1 - abs(source)))).max() < 0.3
    assert outside > 2000


# ---- batches ----


def draw_indices(number, iterations, batch, seed):
    """Return the index of each image drawn, (iterations, batch), of a set of so many images."""
    images = np.arange(number, dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 3), np.float32)
    targets = np.uint8(images[..., 0])
    options = SimpleNamespace(iterations=iterations, batch=batch, augment="none")
    batches = list(pytorch("unetlike").draw_batches(images, targets, options, np.random.default_rng(seed)))
    assert len(batches) == iterations
    for image, target in batches:
        assert image.shape == (batch, 4, 4, 3) and image.dtype == np.float32
        assert target.shape == (batch, 4, 4, 1) and target.dtype == np.uint8
        assert np.array_equal(image[..., :1], target)
    return np.stack([image[:, 0, 0, 0] for image, _ in batches]).astype(int)


@pytest.mark.parametrize("number, batch", [(12, 4), (10, 4), (7, 7), (3, 8), (5, 1)])
def test_every_image_is_drawn_once_in_each_epoch(number, batch):
    epochs = draw_indices(number, 6 * number, batch, seed=0).ravel().reshape(-1, number)
    assert all(sorted(epoch) == list(range(number)) for epoch in epochs)
    assert len(np.unique(epochs, axis=0)) > 1  # shuffled anew


def test_the_seed_decides_the_order():
    first, again, other = (draw_indices(40, 10, 4, seed).ravel().tolist() for seed in (0, 0, 1))
    assert first == again != other and sorted(first) == sorted(other)
    assert first != sorted(first)


def test_batches_are_augmented_each_time_anew():
    answer, rng = pytorch("unetlike"), np.random.default_rng(0)
    image = np.float32(rng.random((1, 16, 16, 3)))
    options = SimpleNamespace(iterations=60, batch=1, augment="affine")
    drawn = [images for images, _ in answer.draw_batches(image, np.uint8(image[..., 0]), options, rng)]
    assert len({images.tobytes() for images in drawn}) > 10


# ---- training ----


# Of 20 iterations 2 warm up; the other 18 are 10 degrees of the cosine each: 1 + cos(0), cos(10), ... over 2.
RATES_20 = {0: 0.05, 1: 0.1, 2: 0.1, 3: 0.0992404, 5: 0.0933013, 8: 0.075, 11: 0.05, 14: 0.025, 17: 0.0066987}
RATES_20[19] = 0.000759612
RATES = {20: RATES_20, 1: {0: 0.1}, 2: {0: 0.1, 1: 0.1}, 13: {0: 0.05, 1: 0.1, 2: 0.1, 12: 0.0020253513}}


@pytest.mark.parametrize("iterations", RATES)
@pytest.mark.parametrize("exercise", ["bin_loss", "unet", "segnet"])
def test_the_learning_rate_warms_up_and_decays(exercise, iterations):
    answer = pytorch(exercise)
    for iteration, rate in RATES[iterations].items():
        for times in (1, 2):
            options = SimpleNamespace(iterations=iterations, lr=0.1 * times)
            assert answer.learning_rate(iteration, options) == pytest.approx(times * rate, rel=1e-5)
    rates = [answer.learning_rate(i, SimpleNamespace(iterations=500, lr=1)) for i in range(500)]
    assert max(rates) == 1 == rates[49] and rates[:50] == pytest.approx(np.arange(1, 51) / 50)
    assert np.all(np.diff(rates[50:]) < 0) and 0 < rates[-1] < 1e-4


@pytest.fixture
def double(monkeypatch):
    """Return a function that loads an answer in double precision, in which two ways to count agree to many digits."""

    def load_double(exercise):
        answer = pytorch(exercise)
        monkeypatch.setattr(answer, "FLOAT", "float64")
        answer.torch.set_default_dtype(answer.torch.float64)
        return answer

    yield load_double
    pytorch("unetlike").torch.set_default_dtype(pytorch("unetlike").torch.float32)


@pytest.mark.parametrize("exercise", TRAINED)
def test_the_loss_is_the_mean_cross_entropy_of_all_pixels(double, exercise):
    answer, rng = double(exercise), np.random.default_rng(0)
    classes = 1 if exercise.startswith("bin") else 3
    logits, targets = rng.normal(0, 5, (2, 5, 4, classes)), rng.integers(0, max(classes, 2), (2, 5, 4, 1), np.uint8)
    logits[0, 0, 0], logits[0, 0, 1] = -800, 800  # where the exponential is 0 or infinite
    if classes == 3:
        logits[0, 0, :2] = (800, 0, -800), (0, 0, 800)
    expected = []
    for logit, target in zip(logits.reshape(-1, classes), targets.ravel(), strict=True):
        each = [0, logit[0]] if classes == 1 else logit
        largest = max(each)
        expected.append(largest + math.log(sum(math.exp(value - largest) for value in each)) - each[target])
    loss = answer.compute_loss(answer.to_tensor(logits, "cpu"), answer.to_tensor(targets, "cpu"))
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-12)


@pytest.mark.parametrize("exercise", ["bin_loss", "unetlike"])
def test_training_is_gradient_descent_with_momentum(double, exercise):
    """The same steps written out: velocity = 0.9 x velocity - rate x gradient, weight = weight + velocity."""
    answer, rng = double(exercise), np.random.default_rng(0)
    options = SimpleNamespace(iterations=6, batch=3, lr=0.3, augment="affine", device="cpu")
    images, targets = rng.uniform(-1, 1, (4, 16, 16, 3)), rng.integers(0, 2, (4, 16, 16), np.uint8)
    trained, network = (answer.build_network(np.random.default_rng(1), options) for _ in "ab")
    losses = answer.train(trained, images, targets, options, np.random.default_rng(2))
    velocities, expected = [0 for _ in network.parameters()], []
    for iteration, batch in enumerate(answer.draw_batches(images, targets, options, np.random.default_rng(2))):
        batch_images, batch_targets = (answer.to_tensor(array, "cpu") for array in batch)
        loss = answer.compute_loss(network(batch_images), batch_targets)
        expected.append(loss.item())
        gradients = answer.torch.autograd.grad(loss, list(network.parameters()))
        rate = answer.learning_rate(iteration, options)
        for i, (weight, gradient) in enumerate(zip(network.parameters(), gradients, strict=True)):
            velocities[i] = 0.9 * velocities[i] - rate * gradient
            weight.data += velocities[i]
    assert losses == pytest.approx(expected, rel=1e-9) and len(set(losses)) == 6
    for (name, one), other in zip(trained.state_dict().items(), network.state_dict().values(), strict=True):
        assert answer.torch.allclose(one, other, rtol=1e-7, atol=1e-9), name


# ---- testing ----


@pytest.mark.parametrize("exercise", ["bin_test", "unetlike"])
def test_measures_are_those_of_scikit_learn(exercise):
    answer, rng = pytorch(exercise), np.random.default_rng(0)
    classes = len(answer.CLASSES)
    targets = rng.integers(0, classes, (5, 8, 9)).astype(np.uint8)
    for share in (0, 0.3, 1):  # of pixels that are predicted at random
        random = rng.random(targets.shape) < share
        predictions = np.where(random, rng.integers(0, classes, targets.shape), targets)
        measures = answer.measure(predictions, targets)
        expected = jaccard_score(targets.ravel(), predictions.ravel(), average=None)
        assert list(measures["iou"]) == list(answer.CLASSES)
        assert list(measures["iou"].values()) == pytest.approx(expected)
        assert measures["miou"] == pytest.approx(expected.mean())
        assert measures["pixel_accuracy"] == pytest.approx(accuracy_score(targets.ravel(), predictions.ravel()))


def test_a_class_that_is_nowhere_has_no_iou_and_one_that_is_never_right_has_0():
    answer = pytorch("unetlike")
    targets = np.uint8([[[0, 0, 0, 1]]])
    measures = answer.measure(np.array([[[0, 0, 1, 0]]]), targets)
    assert measures == {"miou": 0.25, "iou": {"background": 0.5, "akahara": 0, "madara": None}, "pixel_accuracy": 0.5}


def plant(answer, monkeypatch, logits):
    monkeypatch.setattr(answer, "predict", lambda network, images, options: pytest.fail("not planted"))
    monkeypatch.setattr(answer, "predict_augmented", lambda network, images, options: logits)


def read_panels(path, number):
    """Return the panels of a picture, each pixel once; each is shown as 4 x 4."""
    picture = np.array(Image.open(path).convert("RGB"))
    height, width = picture.shape[0] // 4, picture.shape[1] // 4 // number
    assert np.array_equal(picture, picture[::4, ::4].repeat(4, axis=0).repeat(4, axis=1))
    return np.split(picture[::4, ::4], number, axis=1), (height, width)


@pytest.mark.parametrize("exercise", [name for name in TESTED if name != "bin_test"])
def test_pictures_show_input_truth_and_prediction(tmp_path, monkeypatch, exercise):
    answer, rng = pytorch(exercise), np.random.default_rng(0)
    margin = answer.MARGIN if exercise == "unet" else 0
    colours = np.uint8([(0, 0, 0), (127, 0, 0), (0, 127, 0)])
    pixels = rng.integers(0, 256, (2, 6 + 2 * margin, 6 + 2 * margin, 3))
    images = np.float32(pixels / 127.5 - 1)
    targets, predictions = rng.integers(0, 3, (2, 2, 6, 6))
    plant(answer, monkeypatch, 5.0 * np.eye(3)[predictions] - 9)
    names = ["akahara/one", "two"]
    measures = answer.test(None, names, images, np.uint8(targets), SimpleNamespace(out=tmp_path, batch=2))
    assert measures == answer.measure(predictions, targets)
    for i, name in enumerate(names):
        panels, size = read_panels(tmp_path / "pictures" / f"{name}.png", 3)
        assert size == (6, 6)
        middle = pixels[i, margin : margin + 6, margin : margin + 6]
        assert np.array_equal(panels[0], middle)
        assert np.array_equal(panels[1], 2 * colours[targets[i]])
        assert np.array_equal(panels[2], 2 * colours[predictions[i]])
        saved = np.array(Image.open(tmp_path / "predictions" / f"{name}.png"))
        assert np.array_equal(saved, colours[predictions[i]])


def test_pictures_of_bin_test_show_the_probability_too(tmp_path, monkeypatch):
    answer = pytorch("bin_test")
    probabilities = np.array([[[0.1001, 0.4999, 0.5001, 0.9001]]])
    targets = np.uint8([[[0, 1, 1, 0]]])
    plant(answer, monkeypatch, np.log(probabilities / (1 - probabilities))[..., None])
    measures = answer.test(None, ["a"], np.zeros((1, 1, 4, 3), np.float32), targets, SimpleNamespace(out=tmp_path))
    panels, _ = read_panels(tmp_path / "pictures" / "a.png", 4)
    rows = [[128] * 4, [0, 255, 255, 0], [26, 127, 128, 230], [0, 0, 255, 255]]
    for panel, row in zip(panels, rows, strict=True):
        assert np.array_equal(panel, np.array(row)[None, :, None].repeat(3, axis=2))
    saved = np.array(Image.open(tmp_path / "predictions" / "a.png").convert("L"))
    assert saved.tolist() == [[0, 0, 255, 255]] and measures["pixel_accuracy"] == 0.5
    plant(answer, monkeypatch, np.array([[[[-2000.0], [2000.0], [0.0]]]]))
    with np.errstate(all="raise"):  # no overflow; and a probability of 0.5 is a newt
        answer.test(None, ["b"], np.zeros((1, 1, 3, 3), np.float32), targets[..., :3], SimpleNamespace(out=tmp_path))
    assert read_panels(tmp_path / "pictures" / "b.png", 4)[0][3][0, :, 0].tolist() == [0, 255, 255]


def test_a_turned_or_mirrored_image_is_predicted_turned_or_mirrored(monkeypatch):
    answer, rng = pytorch("concat"), np.random.default_rng(0)
    images, bias = rng.random((2, 6, 6, 3)), rng.random((6, 6, 1))
    changes = [np.rot90, lambda array, axes: array[:, ::-1], lambda array, axes: array[:, :, ::-1]]
    monkeypatch.setattr(answer, "predict", lambda network, images, options: images * bias)  # it knows which way is up
    logits = answer.predict_augmented(None, images, None)
    for change in changes:
        turned = change(images, axes=(1, 2))
        assert not np.allclose(answer.predict(None, turned, None), change(images * bias, axes=(1, 2)))
        assert np.allclose(answer.predict_augmented(None, turned, None), change(logits, axes=(1, 2)))
    # Turned and mirrored back, each of the eight times is bias, turned and mirrored so.
    mean = np.mean([np.rot90(each, turns) for each in (bias, bias[::-1]) for turns in range(4)], axis=0)
    assert np.allclose(logits, images * mean)


@pytest.mark.parametrize("exercise", TESTED)
def test_each_test_image_is_predicted_eight_times(exercise, monkeypatch, tmp_path):
    answer, seen = pytorch(exercise), []
    images, margin = np.zeros((2, 8, 8, 3), np.float32), getattr(answer, "MARGIN", 0)
    images = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))

    def predict(network, images, options):
        seen.extend(images)
        return images[:, margin : margin + 8, margin : margin + 8]

    monkeypatch.setattr(answer, "predict", predict)
    answer.test(None, ["a", "b"], images, np.zeros((2, 8, 8), np.uint8), SimpleNamespace(out=tmp_path))
    assert len(seen) == 16


def test_a_prediction_does_not_depend_on_the_rest_of_its_batch():
    answer, rng = pytorch("unetlike"), np.random.default_rng(0)
    images = np.float32(rng.uniform(-1, 1, (5, 16, 16, 3)))
    network = answer.build_network(rng, SimpleNamespace(device="cpu"))
    together, alone = (answer.predict(network, images, SimpleNamespace(batch=n, device="cpu")) for n in (5, 1))
    assert together.shape == (5, 16, 16, 3) and together.dtype == np.float32
    assert np.abs(together - alone).max() < 1e-4 < together.std()
