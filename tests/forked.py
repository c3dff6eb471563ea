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
from importlib.machinery import ModuleSpec
from types import SimpleNamespace

IMPORTS = ("stcore.cli.main", "stcore.runs.training_run", "stcore.cli.evaluate", "sklearn.datasets", "harness")
JAX = {
    "KERAS_BACKEND": "jax",
    "PJRT_NPROC": "1",
    # Nothing is optimised: a network this small takes longer to compile than to run.
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false",
}


class Forked:
    """A process that runs `python ARGS`: `-m MODULE WORDS`, `-c CODE` or `FILE WORDS`. Its output is piped.

    Its standard input is a pipe too; this process holds the other end, `stdin`, and writes nothing.
    joined: what it says on stderr comes on stdout.
    """

    def __init__(self, *args, backend="torch", env=None, new_session=False, joined=False):
        server = _server(backend)  # first: it is not to hold the pipes' ends
        (in_end, given), (out, out_end), (err, err_end), (status, theirs) = (os.pipe() for _ in range(4))
        request = {
            "args": [str(arg) for arg in args],
            "env": env or {},
            "new_session": new_session,
            "joined": joined,
            "folder": os.getcwd(),
        }
        ends = [in_end, out_end, err_end, theirs]
        socket.send_fds(server, [json.dumps(request).encode()], ends)
        for end in ends:
            os.close(end)
        self._status, self.stdin = os.fdopen(status), os.fdopen(given, "w")
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


class _Child(Forked):
    """Stands for the `subprocess.Popen` of `stcore.cli.children`."""

    def __init__(self, command, *, env, start_new_session, **pipes):
        super().__init__(*command[2:], env=env, new_session=start_new_session, joined=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stdin.close()
        self.stdout.close()
        self.wait()


CHILDREN = SimpleNamespace(Popen=_Child, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
"""As `stcore.cli.children.subprocess`, it has the runs of `stcli sweep` and of `--seeds` forked."""
STCLI = [
    "-c",
    "import sys, forked; from stcore.cli import children, main; children.subprocess = forked.CHILDREN; "
    "sys.exit(main.main())",
]
"""`stcli` with such runs."""


@cache
def _server(backend):
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    if backend == _imported:  # this process is forked itself
        if os.fork() == 0:
            ours.close()
            _serve(theirs)
        theirs.close()
        return ours
    command = [sys.executable, __file__, str(theirs.fileno()), backend]
    env = os.environ | (JAX if backend == "jax" else {})
    subprocess.Popen(command, pass_fds=[theirs.fileno()], env=env)  # ends with this process, when ours is closed
    theirs.close()
    return ours


# The server's side

_imported = None  # the backend, in a server and in what it forks
_guards = set()


class _NoTensorFlow:
    """TensorFlow cannot be imported; who only looks for it, as torch.compile does, finds it."""

    def find_spec(self, name, *_):
        return ModuleSpec(name, self) if name == "tensorflow" else None

    def create_module(self, spec):
        raise ModuleNotFoundError(spec.name)

    def exec_module(self, module):
        """Nothing comes this far."""


def _load(backend):
    global _imported
    if backend == "jax":
        sys.meta_path.insert(0, _NoTensorFlow())
    __import__(f"stcore.backends.{'keras' if backend == 'jax' else backend}")
    for name in IMPORTS:
        __import__(name)
    _imported = backend
    sys.modules["forked"] = sys.modules[__name__]


def _serve(requests):
    try:
        while True:
            message, ends, _, _ = socket.recv_fds(requests, 1 << 20, 4)
            if not message:
                return
            while _guards and (ended := os.waitpid(-1, os.WNOHANG)[0]):
                _guards.remove(ended)
            if (guard := os.fork()) == 0:
                requests.close()
                _guard(json.loads(message), *ends)
            _guards.add(guard)
            for end in ends:
                os.close(end)
    finally:
        os._exit(0)


def _guard(request, given, out, err, status):
    """Forks the process and says its number, then how it ended, as `Popen.returncode` has it."""
    child = os.fork()
    if child == 0:
        _become(request, given, out, err)
    for end in (given, out, err):
        os.close(end)
    os.write(status, f"{child}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(status, f"{code}\n".encode())
    os._exit(0)


def _become(request, given, out, err):
    _guards.clear()
    if request["new_session"]:
        os.setsid()
    for number, end in enumerate((given, out, out if request["joined"] else err)):
        os.dup2(end, number)
    os.closerange(3, 256)
    os.chdir(request["folder"])
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, encoding="utf-8", closefd=False) for number in (1, 2))
    os.environ.update(request["env"])
    code = 1
    try:
        exec(os.environ.get("FORKED_FIRST", ""), {"__name__": "forked_first"})  # what a test wants of each process
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
    _load(sys.argv[2])
    _serve(socket.socket(fileno=int(sys.argv[1])))
