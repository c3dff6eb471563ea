"""Reports of runs for people: one HTML file, Markdown, or a model card.

`gathered` reads run folders into plain data, the files beside it turn that into blocks of text, tables and
figures (`blocks`), and `html`, `markdown` and `card` write these out. `writing.write` does it all.
"""
