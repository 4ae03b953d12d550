"""The library side of ``dit eval``: which pictures are compared with what, and by which metrics."""
