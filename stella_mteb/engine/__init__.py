"""From texts to vectors. Knows torch and a tokenizer; knows nothing of MTEB, configs or files of results.

Read `encoder.py` from top to bottom: it is the way of a text.
"""

from stella_mteb.engine.encoder import EncodeStats, TextEncoder
from stella_mteb.engine.heads import Head
from stella_mteb.engine.pooling import Pooling

__all__ = ["EncodeStats", "Head", "Pooling", "TextEncoder"]
