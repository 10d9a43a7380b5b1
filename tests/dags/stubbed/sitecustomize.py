"""Python reads this first, where the folder is on its path: a process that would be a step becomes its stub."""

import os
import sys

if sys.orig_argv[1:3] == ["-m", "cl_steps"]:
    from tests.dags.stub import main

    code = main(sys.orig_argv[3:])
    sys.stdout.flush()
    os._exit(code)
