"""Learns from faces: shards, recognisers, face vectors. Imports nothing else of facemint."""
