"""Directions v of the residual stream, where they are active, and what might describe them."""
