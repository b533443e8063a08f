"""tools/start.py writes starter files, and tools/check.py tells a right attempt from a wrong one, and names slips."""

import ast
import os
import re
import signal
import subprocess
import sys
import time

import check
import pytest
import start
from checks import ADVICE
from conftest import ANSWERS, EXERCISES, FRAMEWORKS, ROOT, run_python
from exercises import find_subject

CHECK = ROOT / "tools/check.py"
CHECKED = [name for name, exercise in EXERCISES.items() if exercise.subject in check.SUBJECTS]
SLIPS = {slip.name: slip for slip in check.read_slips()}
TRY = f"import sys\nsys.path.insert(0, {str(ROOT / 'tools')!r})\nimport check\n"


def run_check(path, **environment):
    """Check an attempt as a user would; return status and output."""
    done = run_python(CHECK, path, cwd=path.parent, env=os.environ | environment)
    return done.returncode, done.stdout + done.stderr


def run_checks(exercise, framework, paths, slips=None):
    """Check attempts in one process, which saves imports; return the output on each, after that of planting slips."""
    program = TRY + f"check.try_slips({framework!r}, names={slips!r})\n" * bool(slips)
    program += f"for path in {list(map(str, paths))!r}:\n    print('=====')\n"
    program += f"    check.check_attempt(check.Path(path), check.find_exercise({exercise!r}), {framework!r})\n"
    done = run_python("-c", program, cwd=paths[0].parent, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-800:]
    outputs = done.stdout.split("=====\n")
    return outputs if slips else outputs[1:]


def write_attempt(folder, exercise, framework, *edits):
    """Write an answer with edits, pairs of old and new text, as an attempt; return its path."""
    folder.mkdir(exist_ok=True)
    text = ANSWERS[exercise, framework].read_text("utf-8")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / ANSWERS[exercise, framework].name
    path.write_text(text, "utf-8")
    return path


# ---- starter files ----


def list_code(tree):
    """Return {name: text} of the statements of a module, without what start.py adds to __main__."""
    return {getattr(node, "name", None) or ast.unparse(node)[:30]: ast.unparse(node) for node in tree.body[1:]}


STARTED = [pair for pair in ANSWERS if pair[0] in CHECKED and pair[1] in ("pytorch", "keras") or pair[1] == "pytorch"]


@pytest.mark.parametrize(("exercise", "framework"), STARTED)
def test_a_starter_file_is_the_answer_without_what_is_new(exercise, framework):
    text, names = start.make_starter(EXERCISES[exercise], framework)
    starter, answer = (list_code(ast.parse(each)) for each in (text, ANSWERS[exercise, framework].read_text("utf-8")))
    assert starter.keys() == answer.keys()
    assert {name for name in starter if starter[name] != answer[name]} == {
        *names,
        next(n for n in answer if "__main__" in n),
    }
    new = start.list_new(EXERCISES[exercise], framework)
    assert set(names) <= set(new) and names
    told = " ".join(ast.get_docstring(ast.parse(text)).split())
    assert f"To write: {', '.join(names)}. All else is there. " in told and "ew here" not in told
    for node in ast.parse(text).body:
        for function in start.list_functions(node) if getattr(node, "name", "") in names else []:
            last = ast.unparse(function.body[-1])
            assert last.startswith(f"raise NotImplementedError('{node.name}: not written yet: see Question_")
            assert len(function.body) <= 2  # at most a docstring before it


def test_a_starter_file_ends_in_one_line_until_it_is_written(fork, tmp_path):
    text, _ = start.make_starter(EXERCISES["nearest"], "chainer")
    path = tmp_path / "Question_semaseg/attempts/07_nearest_chainer.py"
    path.parent.mkdir(parents=True)
    path.write_text(text, "utf-8")
    done = fork(path, "--data", ROOT / "Dataset", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "07_nearest_chainer.py: build_network: not written yet: see Question_"
    )


def test_an_attempt_is_found_by_its_name_and_the_next_exercise_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "attempt_path", lambda each, framework: tmp_path / f"{each.stem}_{framework}.py")
    path = write_attempt(tmp_path, "bin_loss", "keras")
    assert check.find_attempt(check.Path(path.name)) == (path, EXERCISES["bin_loss"], "keras")
    assert check.find_next(EXERCISES["bin_dataset"], "pytorch") == EXERCISES["bin_loss"]
    assert check.find_next(EXERCISES["bin_dataset"], "keras") is None  # there is one already
    assert check.find_next(EXERCISES["segnet"], "keras") is None
    assert check.find_next(EXERCISES["digits_dataset"], "keras") == EXERCISES["digits_cnn"]


def test_start_never_overwrites(tmp_path, monkeypatch, capsys):
    path = tmp_path / "attempts/07_nearest_keras.py"
    monkeypatch.setattr(start, "attempt_path", lambda *_: path)
    monkeypatch.setattr(start, "REPOSITORY", tmp_path)
    monkeypatch.setattr(sys, "argv", ["start.py", "--exercise", "07_nearest", "--framework", "keras"])
    start.main()
    printed = capsys.readouterr().out
    assert "to write: build_network\n" in printed and "Then: make check ATTEMPT=attempts/07_nearest_keras.py" in printed
    path.write_text("mine", "utf-8")
    with pytest.raises(SystemExit) as error:
        start.main()
    assert error.value.code == 2 and path.read_text("utf-8") == "mine"
    message = "exists, and is never overwritten: rename it, or remove it to start anew"
    assert capsys.readouterr().err == f"start.py: attempts/07_nearest_keras.py: {message}\n"


def test_start_sends_nobody_to_a_check_that_there_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(start, "attempt_path", lambda *_: tmp_path / "attempts/02_atrous_keras.py")
    monkeypatch.setattr(start, "REPOSITORY", tmp_path)
    monkeypatch.setattr(sys, "argv", ["start.py", "--exercise", "atrous", "--framework", "keras"])
    start.main()
    assert "make check" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--exercise", "nearst"], "give nearest"),
        (["--exercise", "nearest", "--framework", "jax"], "no such framework"),
    ],
)
def test_start_refuses_in_one_line(tmp_path, arguments, named):
    done = run_python(ROOT / "tools/start.py", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and named in done.stderr


# ---- slips ----


def test_each_slip_has_its_place_its_trap_and_its_checks():
    import checks

    names = {each.name for subject in checks.CHECKS.values() for each in subject}
    texts = [
        line
        for name in check.SUBJECTS
        for path in (ROOT / find_subject(name).folder).rglob("*.md")
        if not path.name.endswith(".ja.md")
        for line in path.read_text("utf-8").splitlines()
    ]
    answers = {
        (name, framework): ANSWERS[name, framework].read_text("utf-8") for name in CHECKED for framework in FRAMEWORKS
    }
    for slip in SLIPS.values():
        assert set(slip.shows) <= names, slip.name
        assert slip.see and all(any(see in line for line in texts) for see in slip.see), slip.name
        assert set(slip.exercises) <= set(CHECKED), slip.name
        for framework in FRAMEWORKS if "all" in slip.edits else slip.edits:
            planted = (check.plant(slip, EXERCISES[name], framework, answers[name, framework]) for name in CHECKED)
            first = next(filter(None, planted), None)
            assert first, (slip.name, framework)
            compile(first, slip.name, "exec")
    assert len(SLIPS) >= 30


# One or two of each check, all in the exercises that are quick to check.
PLANTED = {
    "pytorch": """read_bgr images_in_double mask_averaged unknown_colours with_replacement edge_black mirrored_together
        reshape_for_transpose bn_epsilon bn_momentum_swapped bn_missing block_missing fan_out loss_in_steps
        rate_off_by_one weight_decay trained_in_test_mode gradients_accumulate tested_in_training_mode
        threshold_on_logits views_missing absent_class_0 classes_swapped classes_not_last bilinear_always
        align_corners concat_order crop_corner dropout_inverted adam_epsilon neighbours_4 one_way
        laplacian_random_walk darker_part nodes_reshaped no_self_loops chebyshev_factor""",
    "tensorflow": "channels_first bn_variance_biased",
    "keras": "bn_epsilon softmax_too_few",
    "chainer": "bn_epsilon_chainer reshape_for_transpose gradients_accumulate align_corners transposed_swapped",
}


# Batch normalisation in Chainer of which one part alone has the usual name, and which no list has in the usual order.
LINK = """class Norm(chainer.Link):
    def __init__(self, channels):
        super().__init__()
        zeros, ones = (make(channels, chainer.config.dtype) for make in (np.zeros, np.ones))
        with self.init_scope():
            self.gamma, self.offset = chainer.Parameter(ones), chainer.Parameter(zeros)
        self.average, self.spread = zeros.copy(), ones.copy()
        self.register_persistent("average")
        self.register_persistent("spread")

    def forward(self, x):
        arrays, averages = (x, self.gamma, self.offset), (self.average, self.spread)
        if not chainer.config.train:
            return functions.fixed_batch_normalization(*arrays, *averages, eps=1e-5)
        return functions.batch_normalization(
            *arrays, eps=1e-5, running_mean=averages[0], running_var=averages[1], decay=0.9
        )


def batch_norm(channels):
    return Norm(channels)


def other("""
ORGANISED = {
    "pytorch": (
        "bin_loss",
        [
            ("nn.ReLU()", "nn.Threshold(0, 0)"),
            ("    network.train()\n", ""),  # the mode of a new network of PyTorch
            (
                "    options = parser.parse_args()",
                "    parser.add_argument('--mine')\n    options = parser.parse_args()",
            ),
            ('return {"test_loss": loss}', 'return {"test_loss": loss, "mine": 0.5}'),
        ],
    ),
    "tensorflow": ("transposeconv", [("TransposedConv", "Upsample")]),
    "keras": (
        "bin_loss",
        [
            ("layers.BatchNormalization(", "keras.Sequential([layers.BatchNormalization("),
            (")(x)\n\n\ndef draw_kernel", ")])(x)\n\n\ndef draw_kernel"),
        ],
    ),
    "chainer": ("bin_loss", [("def batch_norm(", LINK)]),
}


@pytest.fixture(scope="module", params=PLANTED)
def said(request, tmp_path_factory):
    """A framework, what is said where slips are planted in it, and of an attempt that is organised differently."""
    exercise, edits = ORGANISED[request.param]
    path = write_attempt(tmp_path_factory.mktemp("said"), exercise, request.param, *edits)
    return request.param, *run_checks(exercise, request.param, [path], PLANTED[request.param].split())


def test_planted_slips_are_named(said):
    framework, planted, _ = said
    found = {row[0]: row[1:] for row in (line.split("\t") for line in planted.splitlines()) if len(row) == 5}
    assert found.keys() == set(PLANTED[framework].split())
    assert {name: row for name, row in found.items() if row[1] != "named"} == {}


def test_layers_may_have_any_names_and_an_attempt_options_and_measures_of_its_own(said):
    _, _, checked = said
    assert checked.endswith("\nright\n") and "  NO " not in checked, checked


# ---- attempts ----

OWN = """
class Conv(nn.Module):
    def __init__(self, generator, inputs, outputs, side):
        super().__init__()
        values = generator.standard_normal((outputs, inputs, side, side)) * np.sqrt(2 / (inputs * side * side))
        self.w = nn.Parameter(torch.tensor(values, dtype=torch.get_default_dtype()))
        self.b = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return functional.conv2d(x, self.w, self.b, padding=self.w.shape[2] // 2)


class Net(nn.Module):
    def __init__(self, generator, mode):
        super().__init__()
        self.mode, steps = mode, []
        for inputs in (3, 32, 32, 32, 32, 32):
            steps += [Conv(generator, inputs, 32, 3), nn.BatchNorm2d(32)]
        self.steps, self.last = nn.ModuleList(steps), Conv(generator, 32, 3, 1)

    def forward(self, x):
        for i in range(6):
            x = self.steps[2 * i + 1](torch.clamp(self.steps[2 * i](x), min=0))
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)) if i == 1 else x
            x = functional.interpolate(x, scale_factor=2, mode=self.mode) if i == 3 else x
        return self.last(x)


def build_network(generator, args):
    return Net(generator, args.upsampling)


"""


def test_an_attempt_that_is_organised_differently_is_right(tmp_path):
    """Its own layers in a module beside it, other names of classes, arguments and parameters, a file of its own."""
    text = ANSWERS["nearest", "pytorch"].read_text("utf-8")
    first, last = text.index("class Network(nn.Sequential)"), text.index("def compute_loss(")
    text = text[:first] + "from own_layers import build_network\n\n\n" + text[last:]
    text = text.replace("    network.train()\n", "    network.train()\n    (options.out / 'mine.txt').write_text('')\n")
    path, temporary = tmp_path / "イモリ 1" / "07_nearest_pytorch.py", tmp_path / "temporary"
    for folder in (path.parent, temporary):
        folder.mkdir()
    path.write_text(text, "utf-8")
    imports = "import numpy as np\nimport torch\nfrom torch import nn\nfrom torch.nn import functional\n\n"
    path.with_name("own_layers.py").write_text(imports + OWN, "utf-8")
    status, output = run_check(path, TMPDIR=str(temporary))
    assert not list(temporary.rglob("mine.txt"))
    assert (
        status == 0
        and "  NO " not in output
        and "\nright\nnext: make start EXERCISE=transposeconv FRAMEWORK=pytorch\n" in output
    ), output
    assert "  yes  first losses: loss 1 " in output and "parameters: 47,619\n" in output


# PyTorch draws the weights of a network in the order in which it holds its layers; the others when they are made.
HELD = {
    "pytorch": [
        ("self.encoder, self.decoder =", "self.ups = nn.ModuleList()\n        self.encoder, self.decoder ="),
        ("self.decoder.append(nn.Sequential(upsample", "self.ups.append(nn.Sequential(upsample"),
        ("zip(self.decoder[::2], self.decoder[1::2], strict=True)", "zip(self.ups, self.decoder)"),
    ],
    "tensorflow": [
        (
            "self.convs = [Conv(rng, in_channels, channels, 3), Conv(rng, channels, channels, 3)]",
            "self.conv1, self.norm1 = Conv(rng, in_channels, channels, 3), BatchNorm(channels)",
        ),
        (
            "self.norms = [BatchNorm(channels), BatchNorm(channels)]",
            "self.conv2, self.norm2 = Conv(rng, channels, channels, 3), BatchNorm(channels)",
        ),
        ("zip(self.convs, self.norms, strict=True)", "((self.conv1, self.norm1), (self.conv2, self.norm2))"),
    ],
}


@pytest.mark.parametrize("framework", HELD)
def test_layers_may_be_held_in_any_order(framework, tmp_path):
    path = write_attempt(tmp_path, "unetlike", framework, *HELD[framework])
    (output,) = run_checks("unetlike", framework, [path])
    wrong = [line for line in output.splitlines() if line.startswith("  NO ")]
    if framework == "tensorflow":
        assert not wrong and output.endswith("\nright\n"), output
    else:
        assert len(wrong) == 1 and wrong[0].startswith("  NO   weights drawn: ")
        assert wrong[0].endswith("; the network holds its layers in another order than data pass them")


def test_a_slip_in_one_place_is_named(tmp_path):
    edit = ("upsample, nn.ReLU(), nn.BatchNorm2d(32)", "upsample, nn.BatchNorm2d(32), nn.ReLU()")
    (output,) = run_checks("transposeconv", "pytorch", [write_attempt(tmp_path, "transposeconv", "pytorch", edit)])
    line = f"{SLIPS['bn_before_relu'].does} The answer with this slip in one place computes what yours does.\n"
    assert line in output, output


def test_a_network_whose_channels_cannot_be_few_is_checked_as_it_is(tmp_path):
    """Its table of channels has another name; where it is wrong, the table of parameters shows it."""
    edits = [("CHANNELS", "WIDTHS")], [("CHANNELS", "WIDTHS"), ("64, 128, 256)", "64, 128, 250)")]
    paths = [write_attempt(tmp_path / str(i), "unetlike", "pytorch", *each) for i, each in enumerate(edits)]
    right, wrong = run_checks("unetlike", "pytorch", paths)
    assert right.endswith("\nright\n") and "  NO " not in right
    assert "  NO   parameters: conv 8 kernel: (250, 128, 3, 3), not (256, 128, 3, 3)\n" in wrong
    assert re.search(r"^ +conv 8 kernel \(250, 128, 3, 3\) +conv 8 kernel \(256, 128, 3, 3\)$", wrong, re.MULTILINE)
    assert "   -   not looked at, since it depends on what does not hold: weights drawn, logits in test mode, " in wrong


FLIPS = ("rng.choice((1, -1), size=2)", "(1 - 2 * (rng.random() < 0.5) for _ in range(2))")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """What is said of attempts at the first exercise, all checked in one process."""
    find = "find_images(folder / {!r})".format
    find = f"(image_paths, others), (mask_paths, more) = {find('images')}, {find('seg_images')}".replace("'", '"')
    paths = '{{path.stem: path for path in sorted((folder / "{}").glob("{}"))}}'.format
    own = "image_paths, others, mask_paths, more = {}, {{}}, {}, {{}}".format
    edits = {
        "mirrored alone": [('if kind == "affine" and', "if False and")],
        "turned": [("1.35 **", "1.4 **")],
        "other draws": [FLIPS, ('if kind == "affine" and', "if False and")],
        "images alone": [
            FLIPS,
            (
                "[::down, ::right]) for array in (image, target)]",
                "[::down, ::right]) for array in (image,)] + [target]",
            ),
        ],
        "rest dropped": [FLIPS, ("            order.extend", "            order = []\n            order.extend")],
        "other rng": [("rng.choice((1, -1)", "np.random.choice((1, -1)")],
        "as Dataset is": [(find, own(paths("images", "*/*.jpg"), paths("seg_images", "*/*.png")))],
        "not as Dataset is": [(find, own(paths("images", "*.jpg"), paths("seg_images", "*.png")))],
        "no known pixel": [("if unknown:", "if not is_class.any():")],
        "no name": [('stop(f"{path}: unknown', 'stop(f"unknown')],
        "none": [("for _ in range(options.iterations):", "for _ in ():")],
        "alike": [
            ("rng.choice((1, -1), size=2)", "ways"),
            ("        batch = [", "        global ways\n        ways = rng.choice((1, -1), size=2)\n        batch = ["),
        ],
        "once": [
            ("rng.choice((1, -1), size=2)", "np.random.default_rng(int(image.sum() > 0)).choice((1, -1), size=2)")
        ],
        "in one way": [("rng.choice((1, -1), size=2)", "rng.choice((1, -1)), 1")],
        "one order": [
            ("    order = []\n", "    order, first = [], rng.permutation(len(images))\n"),
            ("order.extend(rng.permutation(len(images)))", "order.extend(first)"),
        ],
        "no end": [("for _ in range(options.iterations):", "while True:")],
        "two slips": [
            ('image.convert("RGB"))', 'image.convert("RGB"))[..., ::-1].copy()'),
            ("NEAREST_EXACT", "LINEAR"),
        ],
    }
    folder = tmp_path_factory.mktemp("first")
    written = [write_attempt(folder / name, "bin_dataset", "pytorch", *each) for name, each in edits.items()]
    return dict(zip(edits, run_checks("bin_dataset", "pytorch", written), strict=True))


def test_an_attempt_at_the_first_exercise_need_not_turn_images(first):
    """The lesson asks for mirrored images; an attempt that turns them is held to the answer in this, too."""
    left = "   -   batches by augmentation: not asked for here, where images are mirrored alone"
    assert f"{left}\n" in first["mirrored alone"] and first["mirrored alone"].endswith("\nright\n")
    assert "  NO   batches by augmentation: images of batch " in first["turned"]
    assert f"{left}; its random numbers are others" in first["other draws"] and first["other draws"].endswith(
        "\nright\n"
    )


def test_wrong_batches_are_told_whatever_their_random_numbers(first):
    line = "  NO   batches: {}\n       {} The answer with this slip computes what yours does.\n".format
    does = SLIPS["target_not_mirrored"].does
    assert line("targets: not all mirrored as the images, not mirrored as the images", does) in first["images alone"]
    does = SLIPS["rest_dropped"].does
    told = "what is left of an epoch and fills no batch: dropped, not put into the next batch"
    assert line(told, does) in first["rest dropped"]
    assert "  NO   batches: again from the same seed: others (draw all from rng), not the same\n" in first["other rng"]
    line = "  NO   batches: {}\n  yes  tensors\n".format  # no slip is named
    assert line("mirrored left-right: 0%, not half") in first["in one way"]
    assert line("each epoch: in the order of the first, not reshuffled") in first["one order"]
    line = "  NO   batches: the mirrorings are drawn: {}, not for each image anew\n".format
    assert line("once for a whole batch") in first["alike"] and line("once for all epochs") in first["once"]


def test_images_lie_as_in_the_data_set(first):
    assert first["as Dataset is"].endswith("\nright\n") and "  NO   images and targets" in first["not as Dataset is"]


def test_an_unknown_colour_is_to_be_refused_by_name(first):
    line = "  NO   unknown colours: a mask with one pixel of an unknown colour: {}, not refused by name\n"
    assert (
        line.format("taken") in first["no known pixel"] and line.format("refused without its name") in first["no name"]
    )


def test_batches_are_counted_and_those_without_end_are_not_waited_for(first):
    line = "  NO   batches: number of batches: {}, not 100\n".format
    assert line(101) in first["no end"] and line(0) in first["none"]


def test_of_two_slips_one_is_named_where_it_alone_explains_the_first_number(first):
    slips = [line.strip() for line in first["two slips"].splitlines() if "The answer with this slip" in line]
    assert slips == [
        f"{SLIPS['read_bgr'].does} The answer with this slip computes the same images, though not all else."
    ]


def test_what_is_wrong_is_told_in_order_with_the_slip_and_its_trap(tmp_path):
    slip = "nn.Conv2d(in_channels, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()"
    right = "nn.Conv2d(in_channels, 32, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(32)"
    status, output = run_check(write_attempt(tmp_path, "bin_loss", "pytorch", (right, slip)))
    lines = output.splitlines()
    assert status == 1 and lines[0] == "02_bin_loss_pytorch.py: exercise 2, bin_loss, in PyTorch"
    (wrong,) = [i for i, line in enumerate(lines) if line.startswith("  NO ")]
    assert re.match(
        r"  NO   logits in test mode: logits at image \d, row \d+, column \d+, channel 0 \(from 0\): [-.\d]+, not ",
        lines[wrong],
    )
    assert lines[wrong + 1].strip().startswith(SLIPS["bn_before_relu"].does)
    assert re.match(r' +See Question_semaseg/lesson/02_bin_loss\.md, Your task: "convolution 3 x 3', lines[wrong + 2])
    assert lines[-1].startswith("not right yet; the lesson: Question_semaseg/")


TROUBLES = [
    (("import math\n", "import maths\n"), "it can be imported: ModuleNotFoundError: No module named 'maths'"),
    (("import math\n", "raise SystemExit(0)\n"), "it can be imported: it stops with status 0"),
    (("import math\n", "\0\n"), "it can be imported: line 1: no Python: "),
    (("def learning_rate(iteration, options):", "def learning_rate(iteration, options:"), "no Python"),
    (("def train(network, images, targets, options, rng):", "def train(network, data):"), "must take what"),
    (("def compute_loss(", "def loss("), "functions: there is no compute_loss(logits, targets)"),
    (("FLOAT", "TYPE"), "functions: there is no constant FLOAT"),
    (("    network.train()\n", "    raise NotImplementedError\n"), "one step: not written yet"),
    (("    network.train()\n", "    network.trian()\n"), "one step: AttributeError in line "),
    (("    network.train()\n", "    stop('enough')\n"), "it stops with status 2: 02_bin_loss_pytorch.py: enough"),
    (("weight.copy_(", "nn.init.normal_(layer.weight) if rng else ("), "weights drawn: build_network draws nothing fr"),
    (("    return network.to(", "    return network.float().to("), f"float) should be the same{ADVICE}"),
    (("    return network.to(", "    return network.double().to("), f"double) should be the same{ADVICE}"),
    (("    network.eval()", "    pass"), "test: test_loss: "),
    (("targets.to(logits.dtype)", "targets.float()"), f"131.406173706, not 131.406192105{ADVICE}"),
]


def test_what_stops_an_attempt_is_told_in_one_line(tmp_path):
    paths = [write_attempt(tmp_path / str(i), "bin_loss", "pytorch", edit) for i, (edit, _) in enumerate(TROUBLES)]
    for (_, message), output in zip(TROUBLES, run_checks("bin_loss", "pytorch", paths), strict=True):
        wrong = [line for line in output.splitlines() if line.startswith("  NO ")]
        assert len(wrong) == 1 and message in wrong[0], output
        assert output.splitlines()[-1].startswith("not right yet; the lesson: ") and "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["02_bin_loss_keras.py"],
            "02_bin_loss_keras.py: no such file: write one with make start EXERCISE=bin_loss FR",
        ),
        (["mine.py"], "mine.py: mine: no name of an answer: give one such as 11_unetlike_pytorch\n"),
        (["07_nearst_pytorch.py"], "07_nearst_pytorch.py: nearst: no such exercise: give nearest"),
        (["02_atrous_keras.py"], "02_atrous_keras.py: attempts at the exercises of Question_voc cannot be checked yet"),
        (["--framework", "keras"], "--framework keras: give --exercise"),
        (["mine.py", "--exercise", "unet"], "--exercise unet: leave it out, or leave out mine.py\n"),
        (["--exercise", "bin_los"], "argument --exercise: bin_los: no such exercise: give bin_loss"),
        (["02_bin_loss_keras.py", "--slips"], "--slips: plants them in the answers: leave out 02_bin_loss_keras.py\n"),
    ],
)
def test_what_cannot_be_checked_ends_in_one_line(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["check.py", *arguments])
    monkeypatch.setattr(check, "show_slips", None)  # which would take long
    with pytest.raises(SystemExit) as error:
        check.main()
    out, err = capsys.readouterr()
    assert error.value.code == 2 and not out and len(err.splitlines()) == 1
    assert err.startswith(f"check.py: {message}")


def test_an_attempt_that_does_not_end_is_stopped(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(check, "LONGEST", 0.2)
    path = write_attempt(tmp_path, "bin_dataset", "pytorch", ("import cv2\n", "import time\ntime.sleep(60)\n"))
    monkeypatch.setattr(sys, "argv", ["check.py", str(path)])
    with pytest.raises(SystemExit) as error:
        check.main()
    assert error.value.code == 1 and "it takes longer than 0.2 s" in capfd.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="finds the child in /proc, and signals a whole group")
def test_ctrl_c_ends_it_in_one_line(tmp_path):
    path = write_attempt(tmp_path, "bin_dataset", "pytorch")
    with subprocess.Popen([sys.executable, CHECK, path], stdout=-1, stderr=-1, start_new_session=True) as process:
        children = check.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not children.read_text():
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=60)[1] == b"check.py: interrupted\n"


def test_the_table_of_attempts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check, "attempt_path", lambda exercise, framework: tmp_path / f"{exercise.stem}_{framework}.py")
    monkeypatch.setattr(check, "REPOSITORY", tmp_path)
    other = tmp_path / "Question_voc/attempts/02_atrous_keras.py"
    other.parent.mkdir(parents=True)
    other.write_text("")
    assert check.show_table()
    output = capsys.readouterr().out
    assert "cannot be checked yet: Question_voc/attempts/02_atrous_keras.py\n" in output
    assert "no attempt to check yet: write one with make start" in output
    write_attempt(tmp_path, "bin_dataset", "chainer", ("# the masks of the original", "# those of the original"))
    write_attempt(tmp_path, "bin_dataset", "keras")
    write_attempt(tmp_path, "semaseg_dataset", "chainer", ("mask == 128", "mask == 129"))
    assert not check.show_table()
    output = capsys.readouterr().out
    assert re.search(r"1 bin_dataset +(│ +){3}the answer +│ right +│", output)
    assert re.search(r"4 semaseg_dataset +(│ +){4}images and targets +│", output)


def test_an_attempt_that_ends_the_process_is_not_right(tmp_path):
    path = tmp_path / "01_bin_dataset_chainer.py"
    troubles = {
        "import os\nos._exit(0)\n": "with status 0: what comes after the last line is not looked at\n",
        "import checks\nchecks.CHECKS = None\n": "not looked at: TypeError: 'NoneType' object is not subscriptable\n",
    }
    for code, told in troubles.items():
        path.write_text(code, "utf-8")
        status, printed = run_check(path)
        assert status == 1 and told in printed and "right\n" not in printed.replace("not right", "")
