"""Sample: people who do not exist, as vectors in a generator's space.

A sampler is `(n, rng) -> vectors`. It names its `space`, and says in its `source` what its people are:
"<word>: <a sentence>". A run writes that into identities.parquet, and tells it in the terminal, on its page and on the
dataset's card. The word `authentic` is kept for people who were not drawn: vectors of pictures that were there before.
"""
