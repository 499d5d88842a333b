"""Run the `$ command` lines of a console block (stdin) and compare what each prints; `...` stands for any text."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys

COMMAND = re.compile(r"^\$ (?P<command>.*\n(?:> .*\n)*)(?P<want>(?:(?!\$ ).*\n)*)", re.MULTILINE)

for match in COMMAND.finditer(sys.stdin.read()):
    command = re.sub(r"^> ", "", match["command"], flags=re.MULTILINE)
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not doctest.OutputChecker().check_output(match["want"], done.stdout, doctest.ELLIPSIS):
        sys.exit(f"$ {command}wanted:\n{match['want']}got:\n{done.stdout}")
