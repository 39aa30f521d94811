"""Makes faces: the procedural world, the bundled models, and their training. Imports nothing else of facemint."""
