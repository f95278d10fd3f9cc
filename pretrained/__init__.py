"""Shipped checkpoints, one folder each. Data only."""
