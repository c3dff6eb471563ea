"""Skips by name: a strict run fails for a skip whose reason is not in the list.

`STCORE_STRICT_SKIPS=1` (`make test`) or `CI` asks for a strict run. Every run prints its skips by name.
"""

import os
import re
from collections import defaultdict

ALLOWED = {
    "gpu": r"no GPU: ",
    "a-gpu": r"there is a GPU here",
    "cifar10": r"no CIFAR-10 parquet folder at ",
    "browser": r"no browser: none of ",
    "shells": r"(zsh|fish) is not installed",
    "pdflatex": r"pdflatex is not installed",
    "loops": r"(lightning|accelerate) is not installed",
    "compiler": r"inductor needs a C\+\+ compiler",
    "linux": r".*Linux's /proc|.*glibc's allocator|needs /dev/full|bash is not there",
    "huge-pages": r"the system gives huge pages",
    "jax": r"on JAX the (search has no thread of its own|ONNX of a Keras network is refused)",
    "extras": r"(onnx|onnxruntime|onnxscript|tf2onnx|huggingface_hub) is not installed",
}
"""A name for each skip that a complete environment may have, with the pattern of its reason."""


def name_of(reason):
    """The name of an allowed reason, or None."""
    return next((name for name, pattern in ALLOWED.items() if re.match(pattern, reason)), None)


def is_strict(environ=os.environ):
    return any(environ.get(name, "") not in ("", "0", "false") for name in ("STCORE_STRICT_SKIPS", "CI"))


def reason_of(report):
    """The reason of a skipped report, without pytest's prefix; None for an expected failure."""
    if hasattr(report, "wasxfail"):
        return None
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


class Skips:
    """A pytest plugin that collects the skips of all workers and judges them at the end."""

    def __init__(self):
        self.tests = defaultdict(set)  # of each reason

    def _take(self, report):
        if report.skipped and (reason := reason_of(report)) is not None:
            self.tests[reason].add(report.nodeid)

    def pytest_runtest_logreport(self, report):
        self._take(report)

    def pytest_collectreport(self, report):
        self._take(report)

    def pytest_testnodedown(self, node):
        """xdist passes on no module's skip: the workers send what they have seen."""
        for reason, tests in getattr(node, "workeroutput", {}).get("skips", {}).items():
            self.tests[reason].update(tests)

    def unnamed(self):
        return sorted(reason for reason in self.tests if name_of(reason) is None)

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["skips"] = {reason: sorted(tests) for reason, tests in self.tests.items()}
        elif is_strict() and self.unnamed() and session.exitstatus == 0:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter):
        if not self.tests:
            return
        terminalreporter.section("skips by name")
        for reason, tests in sorted(self.tests.items(), key=lambda item: (name_of(item[0]) or "", item[0])):
            name = name_of(reason) or "NOT ALLOWED"
            terminalreporter.line(f"{name} ({len(tests)}): {reason}", red=name_of(reason) is None)
        if is_strict() and self.unnamed():
            terminalreporter.line(
                "Expected every skip to have a name in tests/skips.py; install what is missing, or name it there.",
                red=True,
            )
