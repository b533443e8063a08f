"""Turn what labelme saves into masks: a PNG below seg_images/ for every image below images/.

    python Dataset/labelme_to_masks.py my_newts

Takes my_newts/train and my_newts/test, whichever is there. labelme keeps what was drawn on images/pond/newt.jpg in
images/pond/newt.json; it becomes seg_images/pond/newt.png, of the image's size. What is labelled background, or as
labelme itself calls it _background_, is a hole in what was drawn before it. All files are checked first, and nothing is
written unless every one is in order.
"""

import argparse
import base64
import json
import os
import shlex
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends it in one line, during the imports that follow, too
    signal.signal(signal.SIGINT, lambda *_: sys.exit("labelme_to_masks.py: interrupted"))

import cv2
import numpy as np

COLOURS = {"akahara": (127, 0, 0), "madara": (0, 127, 0)}  # red, green, blue
HOLES = dict.fromkeys(("background", "_background_"), (0, 0, 0))
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
POLYGONS = ("polygon", "oriented_rectangle")
SHAPE_TYPES = (*POLYGONS, "rectangle", "circle", "mask")


class LabelError(Exception):
    """What is wrong with which file and what fixes it, in one line for the user."""


def decode_image(data, flags):
    """Return the array held by the bytes of an image file, or None. `flags` as for cv2.imdecode."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def fill_shape(shape_type, points, encoded, height, width):
    """Return (height, width) uint8: 0 outside the shape, not 0 inside.

    Arguments:
        shape_type: one of SHAPE_TYPES
        points: [x, y] pairs in pixels; polygons: the corners; rectangle: two opposite corners; circle: its centre and
            a point on its rim; mask: its first and last pixel
        encoded: for a mask a PNG in base64 that covers the points' box, not 0 inside; else unused
    Raises:
        ValueError, TypeError: the points or the PNG make no such shape
    """
    points = np.array(points, np.float64).reshape(-1, 2)
    # Turns away "not a number" too, and what a whole number of OpenCV cannot hold.
    if not (np.abs(points) < 1e6).all():
        raise ValueError("points far outside")
    # labelme counts from the corner of a pixel, OpenCV from its middle: labelme's (3.7, 0.2) is in OpenCV's (3, 0).
    corners = np.floor(points).astype(np.int32)
    inside = np.zeros((height, width), np.uint8)
    if shape_type in POLYGONS:
        if len(corners) < 3:
            raise ValueError("fewer than three corners")
        cv2.fillPoly(inside, [corners], 1)
        return inside
    (left, top), (right, bottom) = corners.tolist()
    if shape_type == "rectangle":
        cv2.rectangle(inside, (left, top), (right, bottom), 1, cv2.FILLED)
    elif shape_type == "circle":
        cv2.circle(inside, (left, top), round(np.linalg.norm(points[1] - points[0])), 1, cv2.FILLED)
    else:
        mask = decode_image(base64.b64decode(encoded), cv2.IMREAD_GRAYSCALE)
        if mask is None or min(left, top) < 0:
            raise ValueError("no PNG, or outside the image")
        # A PNG of another size than the box, or one that leaves the image, does not fit: NumPy's ValueError.
        inside[top : bottom + 1, left : right + 1] = mask
    return inside


def draw_mask(label_path, height, width):
    """Paint the shapes that labelme saved for an image of height x width pixels, later ones over earlier ones.

    Returns (height, width, 3) uint8, red, green and blue: the colours of COLOURS on black. Raises LabelError where the
    file is not one of labelme's, not for this image, or holds a shape that has no place in a mask.
    """
    try:
        saved = json.loads(label_path.read_text(encoding="utf-8-sig"))  # an editor may put a byte order mark first
        # Old versions saved neither the sizes nor, when they drew nothing but polygons, the kind of a shape.
        saved_height, saved_width = saved.get("imageHeight") or height, saved.get("imageWidth") or width
        shapes = [
            (each["label"], each.get("shape_type") or "polygon", each["points"], each.get("mask"))
            for each in saved["shapes"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = "no whole JSON of labelme" if isinstance(error, ValueError) else "a JSON, but not one of labelme"
        raise LabelError(f"{label_path}: {wrong}: open the image in labelme and save it again") from None
    if (saved_height, saved_width) != (height, width):
        raise LabelError(
            f"{label_path}: drawn on {saved_width} x {saved_height} pixels, but the image beside it has "
            f"{width} x {height}: put the image that was labelled back in its place"
        )
    painted = np.zeros((height, width, 3), np.uint8)
    for number, (label, shape_type, points, encoded) in enumerate(shapes, start=1):
        where = f"{label_path}, shape {number} of {len(shapes)}"
        if label not in [*COLOURS, *HOLES]:
            known = ", ".join([*COLOURS, "background"])
            raise LabelError(f"{where}: unknown label {label!r}: change it in labelme to one of {known}")
        if shape_type not in SHAPE_TYPES:
            raise LabelError(f"{where}: takes no {shape_type!r}: draw a polygon, a rectangle or a circle in labelme")
        try:
            painted[fill_shape(shape_type, points, encoded, height, width) > 0] = (COLOURS | HOLES)[label]
        except (ValueError, TypeError):
            raise LabelError(f"{where}: broken {shape_type}: draw this shape anew in labelme") from None
    return painted


def find_files(folder):
    """Return the files below a folder, through links too, by kind: images, JSON and other files.

    Each is {name: path}; the name is the path below the folder, without suffix, in Unicode's composed form (NFC), since
    a Mac may write an accented letter as two characters. Hidden files are left out. Raises LabelError where two
    images or two JSON files have one name.
    """
    images, labels, others = {}, {}, {}

    def refuse(error):
        raise error

    walk = os.walk(folder, onerror=refuse, followlinks=True)  # it would pass over what may not be read
    for path in sorted(Path(parent, file) for parent, _, files in walk for file in files):
        below = path.relative_to(folder)
        if any(part.startswith(".") for part in below.parts):
            continue
        name = unicodedata.normalize("NFC", below.with_suffix("").as_posix())
        suffix = path.suffix.lower()
        files = labels if suffix == ".json" else images if suffix in IMAGE_SUFFIXES else others
        if files.setdefault(name, path) != path and files is not others:
            raise LabelError(f"{path}: has the same name as {files[name].name}: rename or move one of the two")
    return images, labels, others


def find_labels(split):
    """Pair the images of a split, the folder train or test, with labelme's JSON files.

    Returns [(path of the JSON, path of the mask to write, height, width of the image in pixels)]. Raises LabelError
    where an image has neither JSON nor mask, a JSON has no image or two, or an image cannot be read.
    """
    if not (split / "images").is_dir():
        return []
    images, labels, others = find_files(split / "images")
    masks = find_files(split / "seg_images")[0] if (split / "seg_images").is_dir() else {}
    masks = {name.lower() for name in masks}  # as the answers pair them
    for name in sorted(labels.keys() - images.keys()):
        if name in others:
            raise LabelError(f"{others[name]}: is neither .jpg nor .png: save it as one of them; its JSON stays right")
        raise LabelError(f"{labels[name]}: no image beside it: put back the image that it was drawn on")
    found = []
    for name, path in images.items():
        mask_path = split / "seg_images" / f"{name}.png"
        if name in labels:
            # IMREAD_COLOR turns the image as its EXIF orientation says; so did labelme when it was drawn on.
            image = decode_image(path.read_bytes(), cv2.IMREAD_COLOR)
            if image is None:
                raise LabelError(f"{path}: not an image that can be read: save it again as JPEG or PNG")
            found.append((labels[name], mask_path, *image.shape[:2]))
        elif name.lower() not in masks:
            raise LabelError(f"{path}: not labelled yet: draw its newts in labelme, or move it out of the folder")
    return found


def write_mask(path, painted):
    """Write a mask (height, width, 3) uint8, red, green and blue, as PNG: the whole file or none."""
    _, png = cv2.imencode(".png", cv2.cvtColor(painted, cv2.COLOR_RGB2BGR))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        part.write_bytes(png.tobytes())
        part.replace(path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        part.unlink(missing_ok=True)


def convert(folder):
    """Write the masks of folder/train and folder/test. Returns how many; raises LabelError before it writes any."""
    found = [entry for split in ("train", "test") for entry in find_labels(folder / split)]
    if not found:
        raise LabelError(f"{folder}: no JSON of labelme below train/images or test/images: label the images first")
    for label_path, _, height, width in found:
        draw_mask(label_path, height, width)
    # Drawn anew rather than kept: a hundred photographs from a telephone would not fit into memory.
    for label_path, mask_path, height, width in found:
        write_mask(mask_path, draw_mask(label_path, height, width))
    return len(found)


def main(arguments=None):
    """Read the command line, convert, and say what to do next. Returns the exit status, 0 or 2."""
    parser = argparse.ArgumentParser(description="Turn labelme's JSON files into masks.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="holds train/images/ and test/images/, or one of them")
    folder = parser.parse_args(arguments).folder
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names in letters that the terminal lacks
    try:
        count = convert(folder)
    except LabelError as error:
        print(f"labelme_to_masks.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        reason = error.strerror or error
        print(f"labelme_to_masks.py: {error.filename}: {reason}: check the folder and your rights", file=sys.stderr)
        return 2
    data = subprocess.list2cmdline([folder]) if os.name == "nt" else shlex.quote(str(folder))
    print(
        f"{count} masks written below {folder}; check them: "
        f"python Question_semaseg/answers/01_bin_dataset_pytorch.py --data {data}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
