"""From predictions to numbers: simulator, judge, metrics, baselines, similarity."""
