"""Which model? Scores with where they are from, compared only where they are alike, with how sure and at what price.

scores (read) ► comparison (like for like, statistics) ► views (terminal, Markdown, JSON, CSV) and report (HTML)
"""
