"""`make weights`: trains the bundled models on renders alone, scores them on others, and writes the card.

Everything is seeded; every part leaves a file in the work folder, and a part whose file is there is not made again.
The people trained on come from streams of random numbers of their own, those scored on from others.
"""

from pipeline.weights.make import make_weights
from pipeline.weights.recipe import GeneratorOrder, WeightsRecipe

__all__ = ["GeneratorOrder", "WeightsRecipe", "make_weights"]
