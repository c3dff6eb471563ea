"""Mutation testing of a room: a random sample of small errors, each of which a test ought to notice.

    python benchmarks/mutants.py core --sample 200 --seed 0

The operators are cosmic-ray's, and three of our own: another `Mode`, a keyword argument left out, a call left out.
Not tried: texts (strings, also within f-strings), annotations, the arguments of `raise`, protocols, and operators
that no number has (`<<` for `+`). A first run notes which tests touch which line. A mutant is run against these
alone, the fastest first, up to the first failure. Tests run on torch (Keras counts as not installed) in a process
forked after all imports; a mutant outside of functions is imported anew. Results are kept in build/mutants/; a
second call continues from them.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import hashlib
import importlib.machinery
import io
import json
import os
import random
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "mutants"
ROOMS = {
    "core": "stcore/core",
    "methods": "stcore/methods",
    "attacks": "stcore/attacks",
    "autoattack": "stcore/autoattack",
    "torch": "backends/torch",
}
TESTS = [
    "oracle",
    "divergences",
    "losses",
    "squeeze",
    "method_metrics",
    "curriculum",
    "perturbation",
    "counts",
    "methods",
    "modes",
    "bad_input",
    "training_loss",
    "conformance",
    "attacks",
    "apgd",
    "apgd_l1",
    "fab",
    "square",
    "deepfool",
    "hyperplane",
    "counter_random",
    "cascade",
    "cascade_counts",
    "cascade_random",
    "folding",
    "recomputing",
    "resident",
    "precision",
    "reference",
    "seeding",
    "any_model",
    "protocol",
    "search",
    "dispatch",
    "ranks",
    "torch_parts",
    "border",
    "writes",
]
"""The test files that concern them; each is noted once."""
EXCEPT = ("backends/torch/ranks.py",)
"""Runs in processes that the tests start, which do not have the mutant."""
LEFT_OUT = "keras or strict or protocol_alone or (ranks and not whole)"
"""Names of tests in the other backends, whose arithmetic is the same and slower."""
SAME = ({"Eq", "Is"}, {"NotEq", "IsNot"})
"""Operators that, exchanged, change no more than the style."""
ALIVE = ("survived", "untested")
SECONDS = 10.0
"""Processor time of a mutant beside five times what its tests take; beyond it, it counts as killed."""
BUDGET = 60.0
"""Seconds of tests, the fastest first, that one mutant is run against."""


class Mutant(NamedTuple):
    """One error: `name` says where and what, `source` is the whole module with it."""

    name: str
    path: str
    line: int
    change: str
    source: str


# --- The mutants ---


def drawn(room: str, seed: int) -> Iterator[Mutant]:
    """All of a room, in a random order."""
    paths = {str(path.relative_to(ROOT)): path for path in sorted((ROOT / ROOMS[room]).rglob("*.py"))}
    modules = {name: path.read_text() for name, path in paths.items() if name not in EXCEPT}
    places = [
        (path, operator, occurrence)
        for path, source in modules.items()
        for operator, count in (*published(source), *Counter(name for name, _ in own(source)).items())
        for occurrence in range(count)
    ]
    random.Random(seed).shuffle(places)
    seen = {path: {None, meaning(source)} for path, source in modules.items()}
    for path, operator, occurrence in places:
        mutated = made(modules[path], operator, occurrence)
        if (means := meaning(mutated)) in seen[path]:
            continue
        seen[path].add(means)
        before, after = modules[path].splitlines(), mutated.splitlines()
        line = next(n for n, (a, b) in enumerate(zip(before, after, strict=False), 1) if a != b)
        change = f"{before[line - 1].strip()}  ->  {after[line - 1].strip()}"
        yield Mutant(f"{path}:{operator}:{occurrence}", path, line, change, mutated)


def published(source: str) -> Iterator[tuple[str, int]]:
    """The operators of cosmic-ray, and at how many places each fits."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    bits, nodes = {"RShift", "LShift", "BitOr", "BitAnd", "BitXor"}, list(ast_nodes(get_ast(source)))
    for name in operator_names():
        short, kind = name.removeprefix("core/"), get_operator(name)
        parts = set(short.split("_")[1:])
        if kind.arguments() or (short.startswith("ReplaceBinary") and len(parts & bits) == 1) or parts in SAME:
            continue
        operator = kind()
        yield short, sum(len(list(operator.mutation_positions(node))) for node in nodes)


def made(source: str, operator: str, occurrence: int) -> str:
    """The mutated module."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    if operator in OWN:
        return [mutated for name, mutated in own(source) if name == operator][occurrence]
    return mutate_code(source, get_operator(f"core/{operator}")(), occurrence) or source


OWN = ("SwapMode", "DropKeyword", "DropCall")


def own(source: str) -> Iterator[tuple[str, str]]:
    """Another `Mode`; a call without one of its keyword arguments; a statement that is a call, left out."""
    for node in ast.walk(ast.parse(source)):
        for operator, begin, end, text in _edits(node):
            yield operator, _replaced(source, begin, end, text)


def _edits(node: ast.AST) -> Iterator[tuple[str, tuple[int, int], tuple[int, int], str]]:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Mode":
        for mode in sorted({"EVAL", "BATCH", "TRAIN"} - {node.attr}):
            yield "SwapMode", *_span(node), f"Mode.{mode}"
    if isinstance(node, ast.Call) and len(node.args) + len(node.keywords) > 1:
        for keyword in node.keywords:
            if keyword.arg is not None:  # "f(a, k=1)" -> "f(a, **{})", which leaves commas alone
                yield "DropKeyword", *_span(keyword), "**{}"
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "DropCall", *_span(node), "pass"


def _span(node: ast.AST) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _replaced(source: str, begin: tuple[int, int], end: tuple[int, int], text: str) -> str:
    lines = source.encode().splitlines(keepends=True)
    at = [sum(map(len, lines[: row - 1])) + column for row, column in (begin, end)]
    whole = b"".join(lines)
    return (whole[: at[0]] + text.encode() + whole[at[1] :]).decode()


class _Plain(ast.NodeTransformer):
    """A module without its texts, annotations and the arguments of what it raises."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("")

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(node.arg)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        node.annotation = ast.Constant("")
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return node


def meaning(source: str) -> str | None:
    """What a mutant has to differ in; None if it is no Python."""
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(source, "mutant", "exec")
    except SyntaxError:
        return None
    tree = ast.parse(source)
    aliases = [
        n for n in tree.body if not (isinstance(n, ast.AnnAssign) and "TypeAlias" in ast.dump(n.annotation))
    ]
    tree.body = [n for n in aliases if not _is_protocol(n)]
    return ast.dump(_Plain().visit(tree))


def _is_protocol(node: ast.AST) -> bool:
    """Protocols are for the type checker."""
    return isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Protocol" for base in node.bases)


# --- Running tests ---


class Session:
    """A pytest plugin: with every test imported, instead of running them it does what `work` says."""

    def __init__(self, work: Callable[[Session], None]) -> None:
        self.work, self.failed = work, ""

    def pytest_runtestloop(self, session) -> bool:
        self.items = {item.nodeid: item for item in session.items if not item.get_closest_marker("slow")}
        self.work(self)
        return True

    def run(self, names: list[str]) -> str:
        """Runs these tests up to the first failure, and returns its name; to be called in a forked process."""
        if lost := next((name for name in names if name not in self.items), None):
            return f"{lost}, which no longer imports"
        items = [self.items[name] for name in names]
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failed:
                return self.failed
        return ""

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed = report.nodeid


def preload() -> None:
    """What every child needs and no mutant changes; Keras as if it were not installed."""
    sys.path.insert(0, str(ROOT / "tests"))
    os.chdir(ROOT)
    import hypothesis  # noqa: F401
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    import torch._dynamo  # as the first optimizer would, in every child anew

    torch.set_num_threads(1)
    with contextlib.suppress(ImportError):
        import pyautoattack  # noqa: F401
    for name in ("keras", "tensorflow", "jax"):
        sys.modules[name] = None  # type: ignore[assignment]


def collected(names: Iterable[str], work: Callable[[Session], None]) -> None:
    """A pytest session over these test files."""
    import pytest

    paths = [f"tests/test_{name}.py" for name in names]
    common = ["-q", "-s", "-n0", "-pno:cacheprovider", "--tb=no", "--hypothesis-seed=0", "-k", f"not ({LEFT_OUT})"]
    pytest.main([*common, *paths], plugins=[Session(work)])


def forked(work: Callable[[], str], seconds: float) -> str | None:
    """What `work` returns in a process of its own; None if that ends or is ended before: by processor time."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
        silent = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(silent, stream)
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, b"=" + said.encode())
        os._exit(0)
    os.close(writer)
    before = signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.alarm(int(60 * seconds))  # of one that waits for ever
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # whatever it started
    os.waitpid(child, 0)
    return said.removeprefix("=") if said else None


# --- Which tests touch which line ---


class Noted(NamedTuple):
    """lines: file → line → the tests that touch it.   seconds: of each test."""

    lines: dict
    seconds: dict


def noted(names: Iterable[str]) -> Noted:
    """From a first run of each test file, kept in a file."""
    folder, lines, seconds = RESULTS / "tests", {}, {}
    for name in names:
        if (path := folder / f"{name}.json").exists():
            of_file = json.loads(path.read_text())
            seconds |= of_file["seconds"]
            for file, at in of_file["lines"].items():
                for line, tests in at.items():
                    lines.setdefault(file, {}).setdefault(int(line), []).extend(tests)
    return Noted(lines, seconds)


def note(name: str) -> None:
    """Runs one test file, and writes down who touches what."""
    path, source = RESULTS / "tests" / f"{name}.json", ROOT / "tests" / f"test_{name}.py"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if path.exists() and json.loads(path.read_text())["digest"] == digest:
        return

    def work(session: Session) -> None:
        def run() -> str:
            import coverage

            seconds, lines, failing = {}, {}, []
            cover = coverage.Coverage(data_file=None, include=[f"{ROOT / folder}/*" for folder in ROOMS.values()])
            cover.start()
            for nodeid in session.items:
                cover.switch_context(nodeid)
                begun, session.failed = time.process_time(), ""
                failing += [nodeid] * bool(session.run([nodeid]))
                seconds[nodeid] = time.process_time() - begun
            cover.stop()
            data = cover.get_data()
            for file in data.measured_files():
                at = {
                    n: [c for c in cs if c and c not in failing] for n, cs in data.contexts_by_lineno(file).items()
                }
                lines[str(Path(file).relative_to(ROOT))] = at
            write(path, {"digest": digest, "lines": lines, "seconds": seconds, "failing": failing})
            return ""

        forked(run, 3600)

    child = os.fork()  # this process imports nothing of stcore
    if not child:
        collected([name], work)
        os._exit(0)
    os.waitpid(child, 0)
    print(
        f"noted {name}: {len(json.loads(path.read_text())['seconds']) if path.exists() else 'failed'}", flush=True
    )


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(value))
    new.replace(path)


def tests_for(mutant: Mutant, known: Noted) -> list[str]:
    """The tests that touch its statement, the fastest first; if none is known to, all that touch its module."""
    tree, lines = ast.parse((ROOT / mutant.path).read_text()), known.lines.get(mutant.path, {})
    spans = [(n.lineno, n.end_lineno or n.lineno) for n in ast.walk(tree) if isinstance(n, ast.stmt)]
    around = [span for span in spans if span[0] <= mutant.line <= span[1]]
    begin, end = max(around, default=(mutant.line, mutant.line))
    names = {name for n in range(begin, end + 1) for name in lines.get(n, ())}
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    outside = not any(n.lineno < mutant.line <= (n.end_lineno or 0) for n in functions)
    if outside or not names:  # pyautoattack switches the tracer off, and what is within untraced
        names = {name for at in lines.values() for name in at}
    chosen, spent = [], 0.0
    for name in sorted(names, key=lambda name: known.seconds[name]):
        spent += known.seconds[name]
        if spent > BUDGET:
            break
        chosen.append(name)
    return chosen


# --- One mutant ---


def outcome(said: str | None) -> dict:
    """said: the test that fails, "" if none does, None if time was over."""
    return {"outcome": "timeout" if said is None else "killed" if said else "survived", "by": said}


def time_for(wanted: list[str], known: Noted) -> float:
    return SECONDS + 5 * sum(known.seconds[name] for name in wanted)


def functions_of(folder: str) -> dict:
    """The functions of a room that live in this process, by module, name and line."""
    found: dict[tuple[str, str, int], list[FunctionType]] = {}
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename.startswith(str(ROOT / folder)):
            code = one.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(one)
    return found


def transplanted(mutant: Mutant, functions: dict) -> bool:
    """Puts the mutant's code into the functions that live; False if none of them differs."""
    path, changed = str(ROOT / mutant.path), False
    stack = [compile(mutant.source, path, "exec", dont_inherit=True)]
    while stack:
        code = stack.pop()
        stack += [const for const in code.co_consts if isinstance(const, CodeType)]
        for function in functions.get((path, code.co_qualname, code.co_firstlineno), ()):
            if function.__code__ != code:
                try:
                    function.__code__ = code
                except ValueError:  # it closes over other names
                    return False
                changed = True
    return changed


def imported_anew(mutant: Mutant) -> None:
    """Whoever imports the module from now on gets the mutant."""
    original, target = importlib.machinery.SourceFileLoader.get_code, str(ROOT / mutant.path)

    def get_code(self, fullname):
        if os.path.realpath(self.path) == target:
            return compile(mutant.source, target, "exec", dont_inherit=True)
        return original(self, fullname)

    importlib.machinery.SourceFileLoader.get_code = get_code


def after_import(mutant: Mutant, wanted: list[str], known: Noted) -> str | None:
    """The test that fails in a process that imports the mutant."""

    def run() -> str:
        imported_anew(mutant)
        said = ["the import"]  # which fails, as long as no session answers
        collected(files_of(wanted), lambda session: said.__setitem__(0, session.run(wanted)))
        return said[0]

    return forked(run, time_for(wanted, known))


def files_of(tests: Iterable[str]) -> list[str]:
    return sorted({name.split("::")[0].removeprefix("tests/test_").removesuffix(".py") for name in tests})


# --- The command ---


class Results:
    """What became of each mutant, kept in a file after each."""

    def __init__(self, room: str, seed: int) -> None:
        self.path = RESULTS / f"{room}-{seed}.json"
        self.by_name = json.loads(self.path.read_text()) if self.path.exists() else {}

    def put(self, mutant: Mutant, result: dict) -> None:
        self.by_name[mutant.name] = {"line": mutant.line, "change": mutant.change, **result}
        write(self.path, self.by_name)
        print(f"{result['outcome']:9} {mutant.name} {mutant.change}", flush=True)


def try_all(room: str, mutants: list[Mutant], results: Results) -> None:
    """Those within functions in one session, the others each in its own."""
    known, anew = noted(TESTS), RESULTS / f"{room}-anew.json"
    wanted = {mutant.name: tests_for(mutant, known) for mutant in mutants}

    def in_session(session: Session) -> None:
        functions, rest = functions_of(ROOMS[room]), []
        gc.freeze()  # memory stays shared
        for mutant in mutants:
            tests = wanted[mutant.name]
            if not tests:
                results.put(mutant, {"outcome": "untested"})
                continue

            def run(mutant: Mutant = mutant, tests: list[str] = tests) -> str:
                return session.run(tests) if transplanted(mutant, functions) else "anew"

            said = forked(run, time_for(tests, known))
            if said == "anew":
                rest.append(mutant.name)
            else:
                results.put(mutant, outcome(said))
        write(anew, rest)

    child = os.fork()  # this process imports nothing of stcore, so that the next ones can
    if not child:
        collected(files_of(name for names in wanted.values() for name in names), in_session)
        os._exit(0)
    os.waitpid(child, 0)
    results.by_name = json.loads(results.path.read_text()) if results.path.exists() else {}
    rest = set(json.loads(anew.read_text()))
    for mutant in mutants:
        if mutant.name in rest:
            results.put(mutant, outcome(after_import(mutant, wanted[mutant.name], known)))


def interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of Clopper and Pearson."""
    from scipy.stats import beta

    low = beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def report(room: str, results: dict) -> str:
    out, outcomes = io.StringIO(), [one["outcome"] for one in results.values()]
    noticed, count = sum(o in ("killed", "timeout") for o in outcomes), len(outcomes)
    if count:
        low, high = interval(noticed, count)
        print(
            f"{room}: {count} mutants tried, {noticed} killed ({outcomes.count('timeout')} by time)",
            file=out,
        )
        print(f"score {noticed / count:.1%}, 95 % interval [{low:.1%}, {high:.1%}]", file=out)
    for name, one in results.items():
        if one["outcome"] in ALIVE:
            print(f"  {one['outcome']:9} {name} line {one['line']}: {one['change']}", file=out)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("--sample", type=int, default=200, help="how many, of a random order")
    parser.add_argument("--seed", type=int, default=0, help="of that order")
    parser.add_argument("--again", action="store_true", help="run the survivors once more: after new tests")
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args()

    chosen = list(islice(drawn(options.room, options.seed), options.sample))
    results = Results(options.room, options.seed)
    if not options.report:
        preload()
        for name in TESTS:
            note(name)
        done = {n for n, one in results.by_name.items() if not (options.again and one["outcome"] in ALIVE)}
        try_all(options.room, [mutant for mutant in chosen if mutant.name not in done], results)
    of_sample = {mutant.name: results.by_name[mutant.name] for mutant in chosen if mutant.name in results.by_name}
    print(report(options.room, of_sample))


if __name__ == "__main__":
    main()
