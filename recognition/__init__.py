"""Learns from faces: reads shards, trains a recogniser, exports it, and knows face vectors. Imports nothing else of facemint."""
