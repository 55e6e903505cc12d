"""The explainer (eq. 1 and 3): its continuous token, its training, its answers, and its
variants."""
