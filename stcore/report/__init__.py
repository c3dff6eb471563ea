"""Reports of runs: one HTML file, Markdown, or a model card.

`gathered` reads run folders into plain data; other modules turn it into blocks of text, tables and figures
(`blocks`); `html`, `markdown` and `card` render them. `writing.write` runs all of these.
"""
