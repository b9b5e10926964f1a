"""Code in a new process, because it is about what happens at import, or to a process."""

import os
import signal
import subprocess
import sys

import pytest


def fresh(code, **environment):
    """What a new process prints. A hang of its own or of a child that it forked ends all of them, and is a failure."""
    ours = ("OMP_NUM_THREADS", "FASTBN_NUM_THREADS", "FASTBN_TARGET")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=kept | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=60)[0].strip()
        except subprocess.TimeoutExpired:
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            pytest.fail("the new process hangs")
