"""tools/schematics.py draws the lesson's figures: what they show is right, they are legible, and the committed ones are
what it draws today. tools/measure_augmentation.py trains as an answer does.
"""

import base64
import re
import sys

import cv2
import matplotlib.style
import matplotlib.text
import measure_augmentation
import numpy as np
import pytest
import schematics
import schematics_graph
import schematics_street
import schematics_voc
import torch
from torch.nn import functional

OF_RUNS = ("sigmoid", "loss_curves", "augmentation")  # what others cannot draw without outputs/lesson/
OF_SOLVERS = ("spectral",)  # to one eigenvalue belong many eigenvectors, and each processor may find another
MODULES = (schematics, schematics_graph, schematics_voc, schematics_street)
SUBJECTS = {name: subject for subject in MODULES for name in subject.FIGURES}
FRAMEWORKS = list(schematics.FRAMEWORKS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder as outputs/lesson/, with made-up runs of three iterations."""
    folder = tmp_path_factory.mktemp("lesson")
    for i, framework in enumerate(FRAMEWORKS):
        path = folder / f"11_unetlike_{framework}/loss.csv"
        path.parent.mkdir()
        path.write_text(f"iteration,loss\n1,1.5\n2,{0.75 + i / 1000}\n3,{0.5 + i / 100}\n")
    points = [(kind, n, part) for kind in measure_augmentation.KINDS for n in (50, 100) for part in ("train", "test")]
    rows = [f"{kind},{n},{part},{n / 200 + 0.25 * (part == 'train')}\n" for kind, n, part in points]
    (folder / "augmentation.csv").write_text("".join(["kind,iteration,part,miou\n", *rows]))
    answer = schematics.load_answer("bin_test_pytorch")
    network = answer.build_network(np.random.default_rng(0), schematics.OPTIONS)
    answer.save_weights(network, folder / "03_bin_test_pytorch")
    return folder


@pytest.fixture(scope="module")
def drawn(runs, tmp_path_factory):
    """{name: (figure, text of the SVG)} of all figures."""
    folder = tmp_path_factory.mktemp("assets")
    patch = pytest.MonkeyPatch()
    patch.setattr(schematics, "RUNS", runs)
    kept = {}
    for name, subject in SUBJECTS.items():
        figures = {name: lambda name=name, draw=subject.FIGURES[name]: kept.setdefault(name, draw())}
        path = schematics.write_figure(name, folder, figures)
        kept[name] = kept[name], path.read_text("utf-8")
    patch.undo()
    return kept


def find_texts(figure):
    """Return the texts that a figure shows, in the order in which they were drawn."""
    unseen = set()  # Matplotlib keeps labels of ticks beyond the ends of an axis
    for axes in (axes for axes in figure.axes if axes.axison):
        for i, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            unseen |= {label for label in axis.get_ticklabels() if not low <= label.get_position()[i] <= high}
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text not in unseen]
    return [text for text in texts if text.get_text().strip()]


def read_numbers(figure):
    """Return all texts of a figure that are numbers."""
    texts = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in find_texts(figure)]
    return [float(text) for text in texts if re.fullmatch(r"-?\d+(\.\d+)?", text)]


def take_pictures_out(svg):
    """Return an SVG without the pictures in it, and these as arrays."""
    pattern = r"data:image/png;base64,([\w+/=\s]+)"
    pictures = [base64.b64decode(found) for found in re.findall(pattern, svg)]
    decoded = [cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED) for picture in pictures]
    # The id of a picture is a hash of its bytes.
    return re.sub(r"image[0-9a-f]{10}", "image", re.sub(pattern, "", svg)), decoded


@pytest.mark.parametrize("name", [name for name in SUBJECTS if name.removesuffix(".ja") not in OF_RUNS + OF_SOLVERS])
def test_the_committed_figure_is_what_is_drawn_today(name, drawn):
    svg, pictures = take_pictures_out(drawn[name][1])
    committed, committed_pictures = take_pictures_out((SUBJECTS[name].ASSETS / f"{name}.svg").read_text("utf-8"))
    assert svg == committed, f"run python tools/{SUBJECTS[name].__name__}.py {name}, and look at it"
    assert len(pictures) == len(committed_pictures)
    for picture, other in zip(pictures, committed_pictures, strict=True):  # processors may round otherwise
        assert picture.shape == other.shape and np.abs(picture.astype(int) - other).max() <= 2


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_figure_stands_on_its_own_card_and_is_small(name, drawn):
    svg = drawn[name][1]
    width, height = re.search(r'<svg [^>]*width="([\d.]+)pt" height="([\d.]+)pt"', svg).groups()
    assert float(width) / 0.75 == schematics.WIDTH
    # The first thing painted covers all of it, in a light colour.
    edge = rf"M 0 {height} \nL {width} {height} \nL {width} 0 \nL 0 0 \nz\n"
    assert re.search(rf'<path d="{edge}" style="fill: #f8f9fa"/>', svg)
    assert "<text" not in svg and "date" not in svg and len(svg) < 300_000
    committed = SUBJECTS[name].ASSETS / f"{name}.svg"
    assert not committed.exists() or committed.stat().st_size < 300_000


@pytest.mark.parametrize("name", SUBJECTS)
def test_texts_are_large_enough_inside_and_apart(name, drawn):
    figure = drawn[name][0]
    with matplotlib.style.context(schematics.STYLE):
        figure.draw_without_rendering()
        boxes = [(text.get_text(), text.get_window_extent()) for text in find_texts(figure)]
    assert boxes and all(text.get_fontsize() / 0.75 >= 11 for text in find_texts(figure))
    width, height = figure.get_size_inches() * figure.dpi
    for text, box in boxes:
        assert box.x0 >= 4 and box.y0 >= 4 and box.x1 <= width - 4 and box.y1 <= height - 4, text
    for i, (text, box) in enumerate(boxes):
        for other, other_box in boxes[i + 1 :]:
            across = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            down = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert min(across, down) <= 2.5, (text, other)  # a box is a little larger than its letters


def test_a_second_run_writes_the_same_bytes(drawn, tmp_path):
    name = "unpooling"
    assert schematics.write_figure(name, tmp_path).read_text("utf-8") == drawn[name][1]
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.svg"]


def test_upsampling_is_that_of_pytorch(drawn):
    array = torch.from_numpy(schematics.UPSAMPLED[None, None].astype(np.float32))
    kernel = torch.from_numpy(schematics.KERNEL[None, None].astype(np.float32))
    nearest = functional.interpolate(array, scale_factor=2, mode="nearest")
    bilinear = functional.interpolate(array, scale_factor=2, mode="bilinear")
    transposed = functional.conv_transpose2d(array, kernel, stride=2)
    shown = [array, nearest, bilinear, transposed, kernel]
    expected = [number for tensor in shown for number in tensor.flatten().tolist()]
    assert read_numbers(drawn["upsampling"][0]) == expected  # so none had to be rounded


def test_unpooling_is_that_of_pytorch(drawn):
    array = torch.from_numpy(schematics.POOLED[None, None].astype(np.float32))
    decoded = torch.from_numpy(schematics.DECODED[None, None].astype(np.float32))
    maxima, places = functional.max_pool2d(array, 2, return_indices=True)
    unpooled = functional.max_unpool2d(decoded, places, 2)
    shown = [array, maxima, places, decoded, unpooled]
    numbers = [text for text in find_texts(drawn["unpooling"][0]) if text.get_fontsize() == 0.75 * 18]
    expected = [int(number) for tensor in shown for number in tensor.flatten().tolist()]
    assert [int(text.get_text()) for text in numbers] == expected
    windows = schematics.POOLED.reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4)
    assert ((windows == windows.max(axis=1, keepdims=True)).sum(axis=1) > 1).any()  # a tie is shown


def test_pooling_gives_ties_to_the_first_as_pytorch_does():
    array = np.random.default_rng(0).integers(0, 3, (8, 12))
    maxima, places = schematics.pool(array)
    values, indices = functional.max_pool2d(torch.from_numpy(array[None].astype(np.float32)), 2, return_indices=True)
    assert (maxima == values[0].numpy()).all() and (places == indices[0].numpy()).all()


def test_softmax_is_that_of_pytorch(drawn):
    rows = torch.from_numpy(schematics.LOGITS).reshape(-1, 3)
    expected = rows.softmax(dim=1).numpy().round(2)
    assert np.allclose(expected.sum(axis=1), 1, atol=1e-9)
    numbers = read_numbers(drawn["pixelwise_softmax"][0])
    planes = rows.T.flatten().tolist()
    assert np.allclose(numbers, [*planes, *rows.flatten().tolist(), *expected.flatten()], atol=1e-9)


def test_class_indices_are_those_of_the_masks(drawn):
    numbers = np.reshape(read_numbers(drawn["class_indices"][0]), (2, 8, 8))
    pictures = [picture[..., :3] for picture in take_pictures_out(drawn["class_indices"][1])[1]]
    for piece, picture, colour in zip(numbers, (pictures[1], pictures[3]), (2, 1), strict=True):  # of blue-green-red
        assert picture.shape == (8, 8, 3) and len(np.unique(piece)) == 2
        assert ((piece > 0) == (picture[..., colour] == 127)).all()
        assert (piece.max() == 1) == (colour == 2)


def test_u_net_has_the_sizes_and_channels_of_its_paper(drawn):
    """arXiv:1505.04597, figure 1; but an RGB picture and three classes."""
    stages = [stage for stage in schematics.record_stages("unet", 572) if stage.step != "conv_transpose2d"]
    down = [572, 570, 568, 284, 282, 280, 140, 138, 136, 68, 66, 64, 32, 30, 28]
    up = [56, 54, 52, 104, 102, 100, 200, 198, 196, 392, 390, 388, 388]
    assert [stage.size for stage in stages] == down + up
    down = [3, 64, 64, 64, 128, 128, 128, 256, 256, 256, 512, 512, 512, 1024, 1024]
    up = [1024, 512, 512, 512, 256, 256, 256, 128, 128, 128, 64, 64, 3]
    assert [stage.channels for stage in stages] == down + up
    expected = [number for stage in stages for number in (stage.channels, stage.size)]
    assert read_numbers(drawn["unet"][0]) == expected
    crops = [text.get_text() for text in find_texts(drawn["unet"][0]) if "→" in text.get_text()]
    assert [crop.replace("\u2009", "") for crop in crops] == ["64→56", "136→104", "280→200", "568→392"]
    margin = read_numbers(drawn["unet_margin"][0])
    assert margin == [92, 388, 92, 388]


@pytest.mark.parametrize("exercise", ["nearest", "concat", "unetlike", "segnet"])
def test_recorded_shapes_are_those_of_a_network_that_was_built(exercise):
    answer = schematics.load_answer(f"{exercise}_pytorch")
    size = answer.NUMBERS["size"][1].start
    network = answer.build_network(np.random.default_rng(0), schematics.OPTIONS)
    shapes = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:3])))
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, size, size))
    stages = schematics.record_stages(exercise, size)
    assert [(stage.channels, stage.size) for stage in stages if stage.step.startswith("conv")] == shapes
    halvings = [stage for stage in stages if stage.step == "max_pool2d"]
    doublings = [s for s in stages if s.step in ("interpolate", "conv_transpose2d", "max_unpool2d")]
    assert len(halvings) == len(doublings) == {"nearest": 1, "concat": 1, "unetlike": 4, "segnet": 5}[exercise]
    for stage in stages:
        if stage.skip is not None:  # it comes from just before a pooling, and fits
            assert stages[stage.skip + 1].step == "max_pool2d" and stages[stage.skip].size == stage.size


def test_the_skip_figure_shows_each_shape(drawn):
    texts = [text.get_text() for text in find_texts(drawn["skip"][0])]
    channels = [int(text[2:]) for text in texts if text.startswith("× ")]
    sizes = [text for text in texts if re.fullmatch(r"\d+ × \d+", text)]
    assert channels == [3, 32, 32, 32, 32, 64, 32, 32, 3]
    assert sizes == ["64 × 64"] * 2 + ["32 × 32"] * 2 + ["64 × 64"] * 5


def test_the_figure_of_bin_loss_shows_its_shapes_and_its_loss(drawn):
    figure = drawn["bin_loss"][0]
    texts = [text.get_text() for text in find_texts(figure)]
    assert {"6 blocks", "× 3", "× 32", "× 1"} <= set(texts) and texts.count("64 × 64") == 3
    curves = [line.get_xydata().T for line in figure.axes[1].lines]
    for (logits, losses), target in zip(curves, (1.0, 0.0), strict=True):
        wanted = functional.binary_cross_entropy_with_logits(
            torch.tensor(logits), torch.full((len(logits),), target, dtype=torch.float64), reduction="none"
        )
        np.testing.assert_allclose(losses, wanted, atol=1e-12)


def test_six_convolutions_see_13_pixels_and_unetlike_all(drawn):
    assert schematics.measure_extent(schematics.find_receptive_field("semaseg_loss", 64)) == (13, 13)
    assert schematics.find_receptive_field("unetlike", 64).all()
    texts = " ".join(text.get_text() for text in find_texts(drawn["receptive_field"][0]))
    # By hand, for pixel 128: from the output down, to the deepest level, and up to the input.
    low = high = 128
    for _ in range(4):
        low, high = (low - 2) // 2, (high + 2) // 2  # a block sees 2 more on each side; a transposed convolution halves
    low, high = low - 2, high + 2
    for _ in range(4):
        low, high = 2 * low - 2, 2 * high + 1 + 2  # each pixel was pooled from two, then a block
    assert "13 × 13 pixels" in texts
    assert f"64 × 64 pixels; {high - low + 1} × {high - low + 1} of a larger image" in texts


@pytest.mark.parametrize("exercise", ["semaseg_loss", "nearest"])
def test_nothing_outside_the_receptive_field_counts(exercise):
    """Tried with weights and pictures of both signs and with real max pooling."""
    field = schematics.find_receptive_field(exercise, 40)
    rng = np.random.default_rng(0)
    answer = schematics.load_answer(f"{exercise}_pytorch")
    network = answer.build_network(rng, schematics.OPTIONS).eval()
    images = torch.from_numpy(rng.standard_normal((1, 3, 40, 40)).astype(np.float32))
    outside, inside = images.clone(), images.clone()
    outside[..., torch.from_numpy(~field)] += 1
    inside[..., torch.from_numpy(field)] += 1
    with torch.inference_mode():
        middle, other, changed = (network(x)[0, :, 20, 20] for x in (images, outside, inside))
    assert (
        not field.all() and torch.allclose(middle, other, atol=1e-5) and not torch.allclose(middle, changed, atol=0.1)
    )


@pytest.mark.parametrize("name", [name for subject in MODULES for name in subject.DRAWN])
def test_a_figure_in_japanese_shows_the_same_in_other_words(name, drawn):
    english, japanese = ([text.get_text() for text in find_texts(drawn[each][0])] for each in (name, f"{name}.ja"))
    assert len(english) == len(japanese)
    letters = [text for text in japanese if not text.isascii() and re.search(r"[\u3040-\u9fff]", text)]
    assert letters and not any(text in english for text in letters)
    numbers = [[sorted(re.findall(r"[\d.,]*\d", text)) for text in texts] for texts in (english, japanese)]
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize("subject", MODULES, ids=lambda subject: subject.__name__)
def test_each_translation_is_used_and_its_letters_are_there(drawn, subject):
    said = " ".join(text.get_text() for name in subject.DRAWN for text in find_texts(drawn[f"{name}.ja"][0]))
    for english, japanese in subject.JAPANESE.items():
        for part in japanese.split("{}"):
            part = re.split(r"\{\d\}", part)[0].rstrip(", ")
            assert part in said, english
    names = ("DejaVu Sans", schematics.find_japanese_font())
    fonts = [matplotlib.font_manager.get_font(matplotlib.font_manager.findfont(name)) for name in names]
    known = {letter for font in fonts for letter in font.get_charmap()}
    assert set(map(ord, said)) - known <= {ord("\n")}


def test_deeplab_has_the_parts_that_are_published(drawn):
    """torchvision 0.28, deeplabv3_resnet101: parameters of the three parts; the sides of its features at 513."""
    texts = [text.get_text() for text in find_texts(drawn["deeplab"][0])]
    numbers = {text.split()[0] for text in texts if text.endswith(" parameters")}
    assert numbers == {"42,500,160", "16,130,837", "2,365,205"}
    stages = [text.get_text() for text in find_texts(drawn["stages"][0])]
    sides = [513, 257, 129, 129, 65, 33, 17, 513, 257, 129, 129, 65, 65, 65]
    shown = [int(text) for text in stages if text in {str(side) for side in sides}]
    assert shown == [513, 257, 129, 129, 65, 33, 17] + [513, 257, 129, 129, 65, 65, 65]
    assert [text for text in stages if text.startswith("/ ") and text[2:].isdigit()] == [
        f"/ {stride}" for stride in (1, 2, 4, 4, 8, 16, 32, 1, 2, 4, 4, 8, 8, 8)
    ]


def test_the_bytes_shown_are_those_of_a_record(drawn, tmp_path):
    answer = schematics.load_answer("street_records_pytorch")
    features = schematics_street.RECORD
    answer.write_shard(tmp_path / "shard", [answer.make_example(features)])
    written = (tmp_path / "shard").read_bytes()
    assert b"".join(part[0] for part in schematics_street.list_parts(features)) == written
    assert [answer.parse_example(payload) for payload in answer.read_shard(tmp_path / "shard")] == [features]
    texts = [text.get_text() for text in find_texts(drawn["record"][0])]
    shown = {f"{byte:02x}" for byte in written} | set("image/format/height/png")
    assert {text for text in texts if len(text) == 1 and not text.isdigit()} <= shown
    assert {f"{byte:02x}" for byte in written[:12]} <= set(texts) and len(texts) > len(written) == 51 + 16


def test_all_labels_are_shown_with_their_ids(drawn):
    answer = schematics.load_answer("street_preprocess_pytorch")
    texts = [text.get_text().replace("\N{MINUS SIGN}", "-") for text in find_texts(drawn["labels"][0])]
    assert {(str(label.id), label.name) for label in answer.LABELS} <= set(zip(texts, texts[1:], strict=False))
    ids = sorted(int(text) for text in texts if re.fullmatch(r"-?\d+", text))
    trained = [label.train_id for label in answer.LABELS if label.train_id != answer.VOID]
    assert ids == sorted([*range(-1, 34), *trained, *range(len(answer.CATEGORIES)), answer.VOID])


def test_the_order_shown_has_each_record_in_each_row(drawn):
    texts = [text.get_text() for text in find_texts(drawn["order"][0])]
    records = [text for text in texts if re.fullmatch(r"\d:\d", text)]
    rows = [records[start : start + 20] for start in range(0, len(records), 20)]
    assert len(rows) == 5 and all(sorted(row) == rows[0] for row in rows) and len(set(rows[0])) == 20
    assert len({tuple(row) for row in rows}) == 5  # as written, drawn, in turn, and two epochs
    for start in (0, 8, 16):  # within a block
        assert sorted(rows[2][start : start + 8]) == sorted(rows[3][start : start + 8])


def test_loss_curves_show_what_the_runs_wrote(drawn):
    upper, lower = drawn["loss_curves"][0].axes[1:]
    assert [line.get_ydata().tolist()[1] for line in upper.lines] == [0.75, 0.751, 0.752, 0.753]
    relative = [line.get_ydata() for line in lower.lines]
    assert np.allclose([curve[1:] for curve in relative], [[i / 750, i / 50] for i in (1, 2, 3)])
    assert all(np.isnan(curve[0]) for curve in relative)  # no difference has no logarithm


def test_augmentation_shows_what_was_measured(drawn):
    figure = drawn["augmentation"][0]
    for chart in figure.axes[1:]:
        assert [list(line.get_ydata()) for line in chart.lines] == [[0.5, 0.75], [0.25, 0.5]]  # train, test
    texts = [text.get_text() for text in find_texts(figure)]
    for expected in ("--augment none", "--augment flips", "--augment affine", "train 0.75", "test 0.50"):
        assert expected in texts


def test_sigmoid_shows_the_binarised_probabilities(drawn):
    *_, truth, probability, binary = take_pictures_out(drawn["sigmoid"][1])[1]
    assert set(np.unique(truth[..., 0])) == set(np.unique(binary[..., 0])) == {0, 255}
    assert ((probability[..., 0] >= 128) == (binary[..., 0] == 255)).all()


@pytest.mark.parametrize("name", OF_RUNS)
def test_what_is_lacking_is_told_in_one_line(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(schematics, "RUNS", tmp_path / "lesson")
    monkeypatch.setattr(schematics, "ASSETS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["schematics.py", name])
    with pytest.raises(SystemExit) as end:
        schematics.main()
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1 and "make lesson-figures" in printed
    assert str(tmp_path / "lesson") in printed and not list(tmp_path.iterdir())


def test_runs_of_different_length_are_told_in_one_line(runs, tmp_path, monkeypatch, capsys):
    for framework in FRAMEWORKS:
        path = tmp_path / f"11_unetlike_{framework}/loss.csv"
        path.parent.mkdir()
        path.write_text("iteration,loss\n1,1.5\n" + "2,1.25\n" * (framework == "keras"))
    monkeypatch.setattr(schematics, "RUNS", tmp_path)
    with pytest.raises(SystemExit) as end:
        schematics.draw_loss_curves(str)
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1 and "unetlike_keras" in printed


@pytest.mark.parametrize("option", [["--colour"], ["segmentatoin"]])
def test_wrong_options_end_in_one_line(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["schematics.py", *option])
    with pytest.raises(SystemExit) as end:
        schematics.main()
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1 and option[0] in printed


# ---- tools/measure_augmentation.py ----


@pytest.mark.parametrize("exercise", ["unetlike", "bin_test"])
def test_measuring_leaves_the_training_as_it_is(exercise, newts):
    answer = schematics.load_answer(f"{exercise}_pytorch")
    arguments = ("--augment", "affine", "--iterations", 3, "--batch", 2, "--size", 32, "--device", "cpu")
    options = measure_augmentation.read_answer_options(answer, *arguments)
    both = {part: answer.load_newts(newts / part, options.size) for part in ("train", "test")}
    losses, measures = measure_augmentation.train_and_measure(answer, both, options, every=2)
    rng = np.random.default_rng(options.seed)
    network = answer.build_network(rng, options)
    assert losses == answer.train(network, *both["train"][1:], options, rng) and len(set(losses)) == 3
    assert [measure[:2] for measure in measures] == [(2, "train"), (2, "test"), (3, "train"), (3, "test")]
    logits = answer.predict(network, both["test"][1], options)
    predictions = logits.argmax(axis=3) if exercise == "unetlike" else logits[..., 0] >= 0
    assert measures[-1][2] == answer.measure(predictions.astype(np.uint8), both["test"][2])["miou"]


def test_the_csv_holds_each_kind_and_part(newts, tmp_path, monkeypatch, capsys):
    answer = schematics.load_answer("semaseg_test_pytorch")
    read = measure_augmentation.read_answer_options

    def read_small(answer, *arguments):
        return read(answer, "--data", newts, "--size", 16, "--batch", 2, *arguments)

    monkeypatch.setattr(measure_augmentation, "read_answer_options", read_small)
    monkeypatch.setattr(measure_augmentation, "load_answer", lambda name: answer)
    path = tmp_path / "new/measures.csv"
    arguments = ["--exercise", "semaseg_test", "--iterations", "1", "--device", "cpu", "--out", str(path)]
    monkeypatch.setattr(sys, "argv", ["measure_augmentation.py", *arguments])
    measure_augmentation.main()
    kinds, parts, iterations, values = schematics.read_table(path, "kind", "part", "iteration", "miou")
    assert kinds == ["none", "none", "flips", "flips", "affine", "affine"] and parts == ["train", "test"] * 3
    assert set(iterations) == {"1"} and all(0 <= float(value) <= 1 for value in values)
    assert [found.name for found in path.parent.iterdir()] == ["measures.csv"]


@pytest.mark.parametrize(
    "arguments", [["--exercise", "bin_dataset"], ["--iterations", "0"], ["--device", "tpu"], ["--out", "{file}/a.csv"]]
)
def test_wrong_options_of_the_measurement_end_in_one_line(arguments, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    arguments = [argument.format(file=tmp_path / "file") for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["measure_augmentation.py", *arguments])
    with pytest.raises(SystemExit) as end:
        measure_augmentation.main()
    printed = capsys.readouterr().err
    assert end.value.code == 2 and printed.count("\n") == 1 and arguments[0] in printed
