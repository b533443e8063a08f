"""Run by conftest.py, once for each framework: runs answers, each in a child of this process, which imports once.

    python forks.py ANSWER

ANSWER is one of the framework's; what it imports, the children have. Each line on stdin is a run, in JSON: "script",
"arguments", "folder" to run in, "out" and "err", files for what it prints, and "before", code that the child runs
first, in which err is the path of that file. The reply, a line on stdout, is its status. Without ANSWER there is one
run, in this process.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path


def run(task):
    """Run a script as Python would, and end this process with its status."""
    os.chdir(task["folder"])
    for path, stream in (("out", 1), ("err", 2)):
        os.dup2(os.open(task[path], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)), stream)
    sys.argv, sys.path[0] = [task["script"], *task["arguments"]], str(Path(task["script"]).parent)
    status = 0
    try:
        exec(task["before"], {"err": task["err"]})
        runpy.run_path(task["script"], run_name="__main__")
    except BaseException as error:
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        status = (error.code or 0) if isinstance(error, SystemExit) else 1
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        run(json.load(sys.stdin))
    runpy.run_path(sys.argv[1])
    for line in sys.stdin:
        child = os.fork()  # safe while no framework has started its threads
        if not child:
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
