"""The explanation tasks of the paper: what differs between them is T, the prompts, and how a generation is parsed and scored."""
