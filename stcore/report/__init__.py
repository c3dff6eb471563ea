"""Reports of runs for readers: one HTML file, Markdown, or a model card.

`gathered` reads run folders into plain data, a module per section turns that into blocks of text, tables and
figures (`blocks`), and `html`, `markdown` and `card` render these. `writing.write` does all of it.
"""
