"""Embed: `Images -> Faces`. Finds each face, aligns it to 112x112, embeds it as a unit vector of its space."""
