"""Figures, each beside a peer."""
