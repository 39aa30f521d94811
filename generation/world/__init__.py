"""The procedural face world: people as vectors, photographs as attributes; pictures and their exact ground truth."""

from generation.world.attributes import ATTRIBUTES, CONTROLS, Attribute, attribute_table
from generation.world.camera import expose
from generation.world.circumstances import circumstances_of
from generation.world.identity import IDENTITY_DIM, SPACE, TRAITS, sample_people
from generation.world.render import PARTS, Rendering, render

__all__ = [
    "ATTRIBUTES",
    "CONTROLS",
    "IDENTITY_DIM",
    "PARTS",
    "SPACE",
    "TRAITS",
    "Attribute",
    "Rendering",
    "attribute_table",
    "circumstances_of",
    "expose",
    "render",
    "sample_people",
]
