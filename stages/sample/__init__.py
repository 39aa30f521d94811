"""Sample: people who do not exist, as vectors in a generator's space.

A sampler is `(n, rng) -> vectors` and names its `space`.
"""
