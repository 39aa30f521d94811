"""`make weights`: trains the bundled models on renders alone, scores them on others, and writes the card.

Everything is seeded; every part leaves a file in the work folder, and a part whose file is there is not made again.
The people trained on come from streams of random numbers of their own, those scored on from others.
"""
