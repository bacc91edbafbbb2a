"""Runs salt-call many times without importing Salt each time: one fork a call. For Salt's own interpreter.

Reads lines of JSON (argv and two files for its output) and answers each with the exit code.
"""

import json
import os
import sys
import traceback

import salt.cli.call
import salt.cli.caller
import salt.minion
import salt.pillar
import salt.state
import salt.utils.parsers


def _child(argv, stdout, stderr):
    os.dup2(os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = argv
    code = 0
    try:
        salt.cli.call.SaltCall().run()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid == 0:
        _child(**request)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
