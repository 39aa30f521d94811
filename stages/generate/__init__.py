"""Generate: `Chunk -> Images`.

A generator names its `space`, `controls`, `licence` and `size_px`, and says whether it wants `unit_vectors`.
"""
