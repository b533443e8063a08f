"""Copy the picture that a run of Question_digits' first answer wrote, and its lesson shows, to Question_digits/assets/.

    python tools/digits_pictures.py [--outputs outputs]

The run is that of the PyTorch answer at its defaults, in its own folder of outputs/.
"""

from voc_pictures import REPOSITORY, main

ASSETS = REPOSITORY / "Question_digits/assets"
PICTURES = {"digits_dataset.png": ("01_digits_dataset_pytorch/pictures/test/0002.png", 1)}


if __name__ == "__main__":
    main(__doc__, PICTURES, ASSETS)
