"""How and in what order: the command line, the composition root, the steps of a run, and the runners."""
