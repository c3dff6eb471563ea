"""Docstrings are prose with `code` in it: made into reStructuredText, where `name: what it is` becomes a list."""

import re
import textwrap

NAMES = r"\w+(?:, \w+)*: "
ITEM = re.compile(rf"(?:^|   +)(?={NAMES})", re.M)
BULLET = re.compile(r"^\* ", re.M)
SENTENCE = re.compile(r"^(?=(?:Returns|Raises|UsageError|DataError|TypeError)\b)", re.M)
NUMBER_OF_A_FIELD = "Alias for field number"


def text_of(words):
    """One paragraph: code spans as they are, what reStructuredText would read as markup as itself."""
    parts = re.split(r"(`[^`]+`)", " ".join(words.split()))
    return "".join(f"`{part}`" if part[:1] == "`" else re.sub(r"([*|_\\])", r"\\\1", part) for part in parts)


def paragraph(lines):
    """A block of a docstring between two empty lines, as reStructuredText."""
    block = "\n".join(lines)
    if all(line.startswith("   ") for line in lines):
        return "::\n\n" + textwrap.indent(textwrap.dedent(block), "   ")
    if BULLET.match(block):
        return "\n\n".join(f"- {text_of(part)}" for part in BULLET.split(block) if part)
    parts = [one for part in SENTENCE.split(block) for one in ITEM.split(part) if one.strip()]
    return "\n\n".join(as_item(part) if re.match(NAMES, part) else text_of(part) for part in parts)


def as_item(part):
    names, _, rest = part.partition(": ")
    return f"- {text_of(', '.join(f'`{name}`' for name in names.split(', ')))}: {text_of(rest)}"


def rewrite(app, what, name, obj, options, lines):
    blocks = re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))
    lines[:] = [*"\n\n".join(paragraph(block.splitlines()) for block in blocks if block).splitlines(), ""]


def leave_out(app, what, name, obj, skip, options):
    """A named tuple's fields say nothing but their number."""
    return True if (getattr(obj, "__doc__", None) or "").startswith(NUMBER_OF_A_FIELD) else None


def setup(app):
    app.connect("autodoc-process-docstring", rewrite)
    app.connect("autodoc-skip-member", leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
