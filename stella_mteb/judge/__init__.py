"""Scores video summaries against references (coarse, fine, HM-CF) and ranks the models that wrote them.

inputs ► sentences ► scores ► judge (one pass over all models) ► results ► ranking
"""
