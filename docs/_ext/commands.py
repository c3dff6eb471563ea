"""The directive `{commands}`: a section per command of `stcli`, with the output of its --help."""

import contextlib
import io
import os
from unittest import mock

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from stcore.cli.completion import actions
from stcore.cli.main import COMMANDS, main


def help_of(*words):
    """What `stcli WORDS --help` prints."""
    said = io.StringIO()
    plain = {"COLUMNS": "88", "FORCE_COLOR": ""}  # independent of the terminal that builds the site
    alone = mock.patch("stcore.base.registry.plug_ins", return_value={})  # without the tests' example package
    with contextlib.redirect_stdout(said), mock.patch.dict(os.environ, plain), alone:
        code = main([*words, "--help"])
    if code:
        raise RuntimeError(f"stcli {' '.join(words)} --help ended with {code}")
    return said.getvalue()


def asked():
    """The commands in the order of `stcli --help`, each followed by its actions, if it has some."""
    for name in COMMANDS:
        yield (name,)
        for action in actions().get(name, ()):
            yield name, action


class Commands(SphinxDirective):
    """Each command under its own heading, in the order of `stcli --help`."""

    def run(self):
        return [self.section(words) for words in asked()]

    def section(self, words):
        title = "stcli " + " ".join(words)
        section = nodes.section("", nodes.title("", "", nodes.literal("", title)), names=[title])
        self.state.document.note_implicit_target(section, section)
        section += nodes.literal_block("", help_of(*words), language="text", classes=["help"])
        return section


def setup(app):
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
