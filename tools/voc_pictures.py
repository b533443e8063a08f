"""Copy those pictures that runs of Question_voc's answers wrote, and its lesson shows, to Question_voc/assets/.

    python tools/voc_pictures.py [--outputs outputs]

Runs are those of the PyTorch answers at their defaults, each in its own folder of outputs/. A large picture is reduced.
"""

import argparse
import sys
from pathlib import Path

from PIL import Image

REPOSITORY = Path(__file__).resolve().parent.parent
ASSETS = REPOSITORY / "Question_voc/assets"
PICTURES = {  # the name there, the run and its picture, and how many times smaller it becomes
    "voc_dataset.png": ("01_voc_dataset_pytorch/pictures/val/2012_100001.png", 1),
    "output_stride.png": ("02_atrous_pytorch/pictures/output_stride.png", 1),
    "padding.png": ("02_atrous_pytorch/pictures/padding.png", 1),
    "align_corners.png": ("02_atrous_pytorch/pictures/align_corners.png", 1),
    "finetuned.png": ("04_deeplab_finetune_pytorch/pictures/2012_100025.png", 1),
    "voc_test.png": ("05_voc_test_pytorch/pictures/2012_100005.png", 2),
}


def stop(message):
    """End with one line and status 2."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    raise SystemExit(2)


def main(description, pictures, assets, colours=None):
    """Copy pictures, as PICTURES describes them, to the folder assets of a subject, all colours of them or so many."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = stop
    parser.add_argument("--outputs", type=Path, default=REPOSITORY / "outputs", help="folder of the runs (%(default)s)")
    options = parser.parse_args()
    for path in (options.outputs / source for source, _ in pictures.values()):
        if not path.exists():
            answer = Path(assets.parent.name, "answers", f"{path.relative_to(options.outputs).parts[0]}.py")
            stop(f"{path}: no such file: run {answer.as_posix()}")
    for name, (source, times) in pictures.items():
        with Image.open(options.outputs / source) as image:
            part = assets / f".part-{name}"
            smaller = image.convert("RGB").reduce(times)
            if colours:  # MAXCOVERAGE keeps those of legends, too, which few pixels have
                smaller = smaller.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
            smaller.save(part, "PNG", optimize=True)
            part.replace(assets / name)
        print(f"wrote {assets / name}")


if __name__ == "__main__":
    main(__doc__, PICTURES, ASSETS)
