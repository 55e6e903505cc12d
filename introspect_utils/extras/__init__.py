"""What nothing above needs: asking an explainer, labelling, sharing, readers of published
archives."""
