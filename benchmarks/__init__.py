"""Side by side with peers: `python -m benchmarks.<name>` for one comparison, `python -m benchmarks`
for all and the table."""
