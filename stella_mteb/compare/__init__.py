"""Comparison of models on MTEB tasks: scores with their sources, significance tests and costs.

Only scores with the same splits, subsets, languages and data revision are compared.

scores (read) ► comparison (matching scores, statistics) ► views (terminal, Markdown, JSON, CSV) and report (HTML)
"""
