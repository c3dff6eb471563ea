"""Tables of finished runs: read from their folders, grouped in rows, written as Markdown, CSV, JSON or LaTeX."""
