"""Video summaries against references: coarse, fine, HM-CF, ranking.

inputs ► sentences ► scores ► judge (one pass over all models) ► results ► ranking
"""
