"""Plain words: expressions that a newcomer would have to translate stay out of code and documentation.

Each is a habit that the project had once, with what the field says instead. The test reads docstrings, comments
and strings of the package, and the pages of the documentation.
"""

import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CALQUES = {
    r"ways? back": "backward pass, gradient",
    r"goes back by": "backward pass, gradient",
    r"go(es|ing)? on\b(?! (the|a|one|to the) (device|GPU|CPU))": "continues, resumes",
    r"went on": "continued, resumed",
    r"reckon(s|ed|ing)?": "computes in",
    r"(is|are|became|was|become) no (finite )?number": "NaN or infinite; non-finite",
    r"(of|in|by|after|for|to|from|at) so many": "n; the count itself",
    r"so many (of|more|times|steps|images|classes|examples)": "n; the count itself",
    r"(is|are|was|were|be|been) told": "is notified, is given, reports, prints",
    r"told (of|by|as|to|what|each|how|the|which|not)": "is notified, is given, reports, prints",
    r"tells?( |\b)(?!us)": "reports, prints, says",
    r"as meant": "pair as intended",
    r"x itself": "the natural image; natural selected",
    r"likeness": "numerical equivalence",
    r"made alike": "with the same settings",
    r"climb(s|ed|ing)?": "ascend, maximise",
    r"dearest": "most expensive",
    r"otherwise than": "different from",
    r"(\w*Error|None|empty|false|true|zero) where": "if",
    r"of by now": "current",
    r"learnt to know": "seen",
    r"without its talk": "without output",
    r"is said in full": "is complete",
    r"in its talk|no talk": "output",
    r"takes? (it |them )?up (the|a|an|what|such|its)": "restores",
    r"puts? in its place": "assigns",
    r"whatever (stands|it is|they are) around": "regardless of",
}
"""What is not said (a regular expression, case ignored) → what to say."""

SOME = re.compile(rf"\b({'|'.join(CALQUES)})", re.IGNORECASE)


def texts():
    """(place, text) of everything that is read: strings and comments of the code, and the pages."""
    for folder in ("stcore", "backends", "models", "cli", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            with tokenize.open(path) as file:
                for token in tokenize.generate_tokens(file.readline):
                    if token.type in (tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)):
                        yield f"{path.relative_to(ROOT)}:{token.start[0]}", token.string
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    for path in sorted(pages):
        if "results" in path.parts or path.name == "CHANGELOG.md":  # as they were written when they were measured
            continue
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def found(text):
    """The calques of a text, each with what to say."""
    flat = re.sub(r"\s+", " ", text)
    if not SOME.search(flat):
        return
    for calque, instead in CALQUES.items():
        for match in re.finditer(rf"\b{calque}", flat, flags=re.IGNORECASE):
            yield f"{flat[max(0, match.start() - 30) : match.end() + 20]!r}: say {instead}"


def test_no_calque_in_code_or_documentation():
    wrong = [f"{place}: {what}" for place, text in texts() for what in found(text)]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "A forward with its way back.",
        "A killed run goes on\nfrom its state.",
        "What a network's forwards reckon in",
        "the loss is no number",
        "UsageError where no epoch could be judged.",
        "Who is told how the work proceeds.",
        "x' climbs the cross-entropy",
    ],
)
def test_a_calque_is_found(text):
    assert list(found(text))
