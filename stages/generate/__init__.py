"""Generate: `Chunk -> Images`.

A generator names its `space`, `controls`, `licence` and `size_px`, and says whether it wants `unit_vectors`.
It may name its `framing`, "whole" or "close-up", so that it is compared only with renders of the same.
"""
