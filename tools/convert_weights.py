"""Turn the weights that an answer saved in one framework into those of the same exercise in another.

    python tools/convert_weights.py outputs/unetlike_pytorch outputs/converted_keras
    python Question_semaseg/answers/unetlike_keras.py --test --out outputs/converted_keras

FROM is a folder that an answer has written, by its --out or outputs/<script>. TO is made if need be, and may not hold
what was trained; its name ends in the framework that it is for, or --framework tells. Each framework loads and saves
its own file by the answer's own functions, in a process of its own; between them the numbers lie in one common layout:
kernels (out, in, height, width), and (out, in) where a layer multiplies by a matrix. A network that was trained with
options of its own, such as --order 3 or --channels 20 24 16, needs the same here; they go to the answers as they stand.
"""

import argparse
import importlib.util
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
FRAMEWORKS = ("pytorch", "tensorflow", "keras", "chainer")
# The common layout of each kind of kernel, as axes of each framework's own.
AXES = {
    "pytorch": {"conv": (0, 1, 2, 3), "transposed": (1, 0, 2, 3), "linear": (0, 1)},
    "tensorflow": {"conv": (3, 2, 0, 1), "transposed": (2, 3, 0, 1), "linear": (1, 0)},
    "keras": {"conv": (3, 2, 0, 1), "transposed": (2, 3, 0, 1), "linear": (1, 0)},
    "chainer": {"conv": (0, 1, 2, 3), "transposed": (1, 0, 2, 3), "linear": (0, 1)},
}


def stop(message):
    """End with one line and status 2."""
    print(f"convert_weights.py: {message}", file=sys.stderr)
    raise SystemExit(2)


def find_answer(exercise, framework):
    """Return the path of the answer to an exercise in a framework."""
    paths = list(REPOSITORY.glob(f"Question_*/answers/{exercise}_{framework}.py"))
    if not paths:
        stop(f"{exercise}: there is no answer {exercise}_{framework}.py: FROM must be written by an answer")
    return paths[0]


def load_script(path):
    """Import an answer as a module; it does nothing until it is called."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    return script


def find_layers(framework, part):
    """Yield (kind, arrays) of each layer with weights, in the order of the network.

    kind is "conv", "transposed", "linear" or "norm"; arrays are the framework's own: kernel and bias of the first
    three; gamma, beta, running mean and running variance of the last.
    """
    if framework == "pytorch":
        for layer in part.modules():
            name = type(layer).__name__
            if name in ("Conv2d", "ConvTranspose2d"):
                yield "conv" if name == "Conv2d" else "transposed", (layer.weight, layer.bias)
            elif name == "Linear":
                yield "linear", (layer.weight, layer.bias)
            elif name == "BatchNorm2d":
                yield "norm", (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    elif framework == "keras":
        for layer in part.layers:
            name = type(layer).__name__
            if name in ("Conv2D", "Conv2DTranspose"):
                yield "conv" if name == "Conv2D" else "transposed", (layer.kernel, layer.bias)
            elif name == "BatchNormalization":
                yield "norm", (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
            elif hasattr(layer, "kernel"):
                yield "linear", (layer.kernel, layer.bias)
    elif isinstance(part, list | tuple):
        for item in part:
            yield from find_layers(framework, item)
    elif framework == "tensorflow" and hasattr(part, "trainable_variables") and hasattr(part, "submodules"):
        if hasattr(part, "kernel"):
            kind = "transposed" if type(part).__name__ == "TransposedConv" else "conv"
            yield "linear" if len(part.kernel.shape) == 2 else kind, (part.kernel, part.bias)
        elif hasattr(part, "gamma"):
            yield "norm", (part.gamma, part.beta, part.mean, part.variance)
        else:
            for name, item in vars(part).items():  # in the order in which the network was built
                if not name.startswith("_"):
                    yield from find_layers(framework, item)
    elif framework == "chainer" and hasattr(part, "cleargrads"):
        if hasattr(part, "W"):
            transposed = any(base.__name__ == "Deconvolution2D" for base in type(part).__mro__)
            kind = "transposed" if transposed else "conv"
            yield "linear" if part.W.ndim == 2 else kind, (part.W, part.b)
        elif hasattr(part, "gamma"):
            yield "norm", (part.gamma, part.beta, part.avg_mean, part.avg_var)
        else:
            is_list = hasattr(part, "__iter__")
            for item in part if is_list else [vars(part)[name] for name in vars(part) if name in part._children]:
                yield from find_layers(framework, item)


def to_numpy(framework, array):
    """Return a framework's array as NumPy's."""
    if framework == "pytorch":
        return array.detach().cpu().numpy()
    return np.asarray(getattr(array, "array", array) if framework == "chainer" else array)


def name_arrays(framework, network):
    """Yield (name, kind, array) of each of a network's own arrays, such as "norm 3 gamma": counted by kind from 0."""
    counts = dict.fromkeys(("conv", "transposed", "linear", "norm"), 0)
    for kind, arrays in find_layers(framework, network):
        names = ("gamma", "beta", "mean", "variance") if kind == "norm" else ("kernel", "bias")
        for name, array in zip(names, arrays, strict=True):
            yield f"{kind} {counts[kind]} {name}", kind, array
        counts[kind] += 1


def get_weights(framework, network):
    """Return {name: array} of a network's weights and running averages in the common layout, as NumPy arrays."""
    weights = {}
    for name, kind, array in name_arrays(framework, network):
        array = to_numpy(framework, array)
        weights[name] = array.transpose(AXES[framework][kind]) if name.endswith("kernel") else array
    return weights


def set_weights(framework, network, weights):
    """Give a network the weights that get_weights returned; ValueError where they are those of another network."""
    own = {name: array.shape for name, array in get_weights(framework, network).items()}
    if own != {name: array.shape for name, array in weights.items()}:
        raise ValueError
    for name, kind, array in name_arrays(framework, network):
        new = weights[name].transpose(np.argsort(AXES[framework][kind])) if name.endswith("kernel") else weights[name]
        new = np.ascontiguousarray(new)
        if framework == "pytorch":
            array.data.copy_(type(array.data)(new))
        elif framework == "chainer":
            getattr(array, "array", array)[...] = new
        else:
            array.assign(new)


def run_child(part, script, folder, numbers, more):
    """Export to, or import from, an .npz file of numbers, in a process that sees this one framework."""
    framework = script.stem.rpartition("_")[2]
    sys.argv = [str(script), "--device", "cpu", *more]
    answer = load_script(script)
    if not hasattr(answer, "build_network"):
        stop(f"{script.name}: this exercise trains nothing, so it has no weights")
    network = answer.build_network(np.random.default_rng(0), answer.read_options())
    if part == "export":
        answer.load_weights(network, folder)
        np.savez(numbers, **get_weights(framework, network))
        return
    with np.load(numbers) as saved:
        try:
            set_weights(framework, network, dict(saved))
        except ValueError:
            stop(f"{script.name}: its network is another than the one whose weights FROM has")
    try:
        answer.save_weights(network, folder)
        metrics = json.dumps({"exercise": answer.EXERCISE, "framework": framework})
        answer.write_whole(folder / "metrics.json", lambda aside: aside.write_text(metrics + "\n"))
    except OSError as error:
        stop(f"{error}: choose another folder for TO")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("source", metavar="FROM", type=Path, help="folder that holds the weights")
    parser.add_argument("target", metavar="TO", type=Path, help="folder to write the converted weights to")
    parser.add_argument("--framework", choices=FRAMEWORKS, help="of TO (told by the end of its name)")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options, more = parser.parse_known_args()
    if options.child:
        part, script, numbers = options.child
        run_child(part, Path(script), options.source if part == "export" else options.target, numbers, more)
        return
    metrics_path = options.source / "metrics.json"
    try:
        metrics = json.loads(metrics_path.read_text(encoding="utf-8"))
        exercise, source = metrics["exercise"], metrics["framework"]
    except (OSError, ValueError, KeyError, TypeError):
        stop(f"{metrics_path}: cannot be read: FROM must be a folder that a trained answer has written")
    target = options.framework or options.target.name.rpartition("_")[2]
    if target not in FRAMEWORKS:
        stop(f"{options.target}: its name ends in no framework: give --framework {', '.join(FRAMEWORKS)}")
    try:
        other = json.loads((options.target / "metrics.json").read_text(encoding="utf-8"))["exercise"]
    except (OSError, ValueError, KeyError, TypeError):
        other = exercise  # nothing there, or nothing of an answer's
    if other != exercise:
        stop(f"{options.target}: holds what {other} gave, and FROM is of {exercise}: choose another folder for TO")
    if options.target.resolve() == options.source.resolve():
        stop(f"{options.target}: is FROM itself: choose another folder for TO")
    if (options.target / "loss.csv").exists():
        stop(f"{options.target}: holds a training's weights, which would be lost: choose another folder for TO")
    with tempfile.TemporaryDirectory() as folder:
        numbers = str(Path(folder) / "weights.npz")
        for part, framework in (("export", source), ("import", target)):
            command = [sys.executable, __file__, str(options.source), str(options.target)]
            child = subprocess.run([*command, "--child", part, str(find_answer(exercise, framework)), numbers, *more])
            if child.returncode:
                sys.exit(child.returncode)
    script = find_answer(exercise, target)
    command = shlex.join([sys.executable, str(script), "--test", "--out", str(options.target), *more])
    print(f"Written to {options.target}/; try it: {command}")


if __name__ == "__main__":
    main()
