"""Tables of finished runs: read from their folders, put into rows, written as Markdown, CSV, JSON or LaTeX."""
