"""Run an answer in double precision, in which the losses of all four frameworks coincide.

    python tools/double_precision.py Question_semaseg/answers/11_unetlike_keras.py --iterations 20 --out outputs/double

What follows the path are the answer's own options. Everything is as in a run of the answer itself, but for its constant
FLOAT, and so it takes about twice the time.
"""

import sys

from exercises import load_answer


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        raise SystemExit(0 if len(sys.argv) > 1 else 2)
    sys.argv = sys.argv[1:]
    try:
        answer = load_answer(sys.argv[0])
        answer.FLOAT = "float64"
        answer.main()
    except (OSError, AttributeError, ImportError, SyntaxError) as error:  # AttributeError: of a file that is no script
        print(f"double_precision.py: {sys.argv[0]}: {error}: give the path of an answer", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
