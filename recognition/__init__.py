"""Learns from faces: reads shards, trains a recogniser, exports it, knows face vectors. Imports nothing else of
ours."""
