"""The explanation procedures T(M, q) -> E, the questions in words, and how answers are read."""
