"""Copy those pictures that runs of Question_street's answers wrote, and its lesson shows, to Question_street/assets/.

    python tools/street_pictures.py [--outputs outputs]

Runs are those of the PyTorch answers at their defaults, as `make street` leaves them in outputs/. To be small, a
picture keeps 256 colours, none of which is far from its own.
"""

from voc_pictures import REPOSITORY, main

ASSETS = REPOSITORY / "Question_street/assets"
SCENE = "wiesenhafen_000011_000019"  # has all categories, and by default each of these answers writes a picture of it
PICTURES = {  # the name there, the run and its picture, and how many times smaller it becomes
    "street_preprocess.png": (f"01_street_preprocess_pytorch/pictures/val/{SCENE}.png", 1),
    "street_train.png": (f"03_street_train_pytorch/pictures/{SCENE}.png", 1),
    "confusion.png": ("04_street_test_pytorch/confusion_category.png", 1),
    "street_test.png": (f"04_street_test_pytorch/pictures/{SCENE}.png", 1),
    "best.png": ("05_street_inference_pytorch/best.png", 1),
    "worst.png": ("05_street_inference_pytorch/worst.png", 1),
}


if __name__ == "__main__":
    main(__doc__, PICTURES, ASSETS, 256)
