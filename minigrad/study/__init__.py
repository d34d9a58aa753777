"""Tools to study gradients with: gradient checks, drawings of the graph."""
