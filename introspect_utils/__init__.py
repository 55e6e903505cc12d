"""Companion library to "Training Language Models to Explain Their Own Computations" (arXiv
2511.08579)."""

__version__ = "0.1.0"
