"""The numbered paragraphs of decisions.md can be linked to: `decisions.md#decision-4`."""

from docutils import nodes


def name_them(app, doctree):
    if app.env.docname != "decisions":
        return
    slugs = app.env.metadata["decisions"].setdefault("myst_slugs", {})
    (numbered,) = doctree.findall(nodes.enumerated_list)
    for number, item in enumerate(numbered, 1):
        name = f"decision-{number}"
        item["ids"].append(name)
        slugs[name] = (item.line or 0, name, f"decision {number}")


def setup(app):
    app.connect("doctree-read", name_them)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
