"""What the target reads: facts, multiple-choice questions, text, and where their files come
from."""
