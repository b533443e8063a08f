"""Run an answer in double precision, in which the losses of all four frameworks coincide.

    python tools/double_precision.py Question_semaseg/answers/11_unetlike_keras.py --iterations 20 --out outputs/double

What follows the path are the answer's own options. Everything is as in a run of the answer itself, but for its constant
FLOAT, and so it takes about twice the time.
"""

import sys
from pathlib import Path

from exercises import load_answer


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        raise SystemExit(0 if len(sys.argv) > 1 else 2)
    sys.argv = sys.argv[1:]
    if not sys.argv[0].endswith(".py") or not Path(sys.argv[0]).is_file():
        print(f"double_precision.py: {sys.argv[0]}: no such answer: give the path of its .py file", file=sys.stderr)
        raise SystemExit(2)
    answer = load_answer(sys.argv[0])
    answer.FLOAT = "float64"
    tell = getattr(answer, "say", answer.stop)  # as the answer itself would
    own = tuple(getattr(answer, name) for name in ("Damaged", "Stopped") if hasattr(answer, name))
    try:
        answer.main()
    except own as error:
        tell(error)
        raise SystemExit(2) from None
    except OSError as error:
        tell(f"{error}: fix that, or name another folder with --data or --out")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
