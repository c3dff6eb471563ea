"""Commands in processes that a server forks: it has imported PyTorch, or Keras, once for all of them.

What is forked is a process like any other: it has its own environment, is signalled, killed and waited for. A
process that imports its framework itself takes seconds to begin.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from functools import cache

IMPORTS = ("stcore.cli.main", "stcore.runs.training_run", "stcore.cli.evaluate", "sklearn.datasets", "harness")


class Forked:
    """A process that runs `python ARGS`: `-m MODULE WORDS`, `-c CODE` or `FILE WORDS`. Its output is piped."""

    def __init__(self, *args, backend="torch", env=None, new_session=False):
        status, theirs = os.pipe()
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        request = {"args": [str(arg) for arg in args], "env": env or {}, "new_session": new_session}
        ends = [out_end, err_end, theirs]
        socket.send_fds(_server(backend), [json.dumps(request).encode()], ends)
        for end in ends:
            os.close(end)
        self._status = os.fdopen(status)
        self.stdout, self.stderr = (os.fdopen(end, encoding="utf-8") for end in (out, err))
        self.pid, self.returncode = int(self._status.readline()), None
        self._ended = threading.Thread(target=self._wait, daemon=True)
        self._ended.start()

    def _wait(self):
        self.returncode = int(self._status.readline())

    def poll(self):
        return self.returncode

    def wait(self, timeout=300):
        self._ended.join(timeout)
        assert self.returncode is not None, f"still running after {timeout} s"
        return self.returncode

    def communicate(self, timeout=300):
        """(stdout, stderr) to their end."""
        said = {}
        readers = [
            threading.Thread(target=lambda name=name: said.update({name: getattr(self, name).read()}), daemon=True)
            for name in ("stdout", "stderr")
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
        return said["stdout"], said["stderr"]

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)


def ended(process, code=0):
    """What a process printed that is to end with this code."""
    out, err = process.communicate()
    assert process.returncode == code, err
    return out, err


def forked(*args, code=0, **options):
    """Runs to the end; returns (stdout, stderr)."""
    return ended(Forked(*args, **options), code)


@cache
def _server(backend):
    ours, theirs = socket.socketpair()
    command = [sys.executable, __file__, str(theirs.fileno()), backend]
    subprocess.Popen(command, pass_fds=[theirs.fileno()])  # ends when our end is closed: with this process
    theirs.close()
    return ours


# The server's side


def _serve(requests, backend):
    __import__(f"stcore.backends.{backend}")
    for name in IMPORTS:
        __import__(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the guardians
    while True:
        message, ends, _, _ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            _guard(json.loads(message), *ends)
        for end in ends:
            os.close(end)


def _guard(request, out, err, status):
    """Forks the process and says its number, then how it ended, as `Popen.returncode` has it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(status)
        _become(request, out, err)
    for end in (out, err):
        os.close(end)
    os.write(status, f"{child}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(status, f"{code}\n".encode())
    os._exit(0)


def _become(request, out, err):
    if request["new_session"]:
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, 256)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))
    os.environ.update(request["env"])
    code = 1
    try:
        _run(*request["args"])
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else bool(stopped.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code or 0))


def _run(first, second, *words):
    if first == "-m":
        sys.argv = [second, *words]
        runpy.run_module(second, run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *words]
        exec(compile(second, "<command>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [first, second, *words]
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
