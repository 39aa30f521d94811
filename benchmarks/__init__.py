"""Measures, and tells: verification sets, protocols, scores and reports. A model is a callable, crops -> embeddings."""
