"""Who a person of the world is: independent, standard-normal traits, each with a name.

A person is a vector of `IDENTITY_DIM` raw (not unit-norm) coordinates. Any vector is somebody; values are held to
within +-3 standard deviations, beyond which nobody in the world goes.
"""

import numpy as np
from jaxtyping import Float32

SPACE = "world-1"

TRAITS: dict[str, str] = {
    "dimorphism": "heavier jaw, brow and beard (+) or softer face and fuller lips (-)",
    "skull_width": "width of the cranium",
    "skull_height": "height of the cranium",
    "skull_depth": "length of the cranium, front to back",
    "forehead_slope": "how far the forehead leans back",
    "brow_ridge": "bone above the eyes",
    "temple": "hollow beside the eyes",
    "face_length": "distance from the eyes to the chin",
    "jaw_width": "width of the lower face",
    "jaw_angle": "corner of the jaw below the ears",
    "chin_length": "how low the chin reaches",
    "chin_width": "pointed (-) or square (+) chin",
    "chin_protrusion": "how far the chin stands out",
    "cheekbone": "how far the cheekbones stand out",
    "cheekbone_height": "where the cheekbones sit",
    "cheek_fullness": "hollow (-) or full (+) cheeks",
    "nose_length": "how low the tip sits",
    "nose_width": "width of the nostrils",
    "nose_bridge": "height of the bridge between the eyes",
    "nose_ridge": "width of the ridge",
    "nose_tip": "size of the ball of the tip",
    "nose_protrusion": "how far the tip stands out",
    "nose_hook": "dip (-) or hump (+) halfway",
    "nose_bend": "tip bent to the left (-) or right (+)",
    "eye_spacing": "distance between the eyes",
    "eye_size": "size of the opening",
    "eye_tilt": "outer corners low (-) or high (+)",
    "eye_depth": "how deep the sockets are",
    "eye_aspect": "narrow (-) or round (+) opening",
    "eye_height": "where the eyes sit",
    "lid": "distance of the crease of the upper lid",
    "mouth_width": "distance between the corners",
    "upper_lip": "height of the upper lip",
    "lower_lip": "height of the lower lip",
    "mouth_height": "where the mouth sits",
    "mouth_protrusion": "how far the lips stand out",
    "lip_colour": "pale (-) or deep (+) lips",
    "cupid_bow": "notch of the upper lip",
    "ear_size": "size of the ears",
    "ear_protrusion": "how far the ears stand off",
    "melanin": "light (-) or dark (+) skin",
    "undertone": "rosy (-) or golden (+) skin",
    "blush": "redness of cheeks and nose",
    "freckles": "amount of freckles",
    "freckle_place_x": "which freckles, sideways",
    "freckle_place_y": "which freckles, upwards",
    "mole_1_side": "longitude of the first mole",
    "mole_1_height": "latitude of the first mole",
    "mole_2_side": "longitude of the second mole",
    "mole_2_height": "latitude of the second mole",
    "mole_3_side": "longitude of the third mole",
    "mole_3_height": "latitude of the third mole",
    "mole_size": "size of the moles",
    "iris_hue": "brown (-), green, blue (+)",
    "iris_lightness": "dark (-) or light (+) iris",
    "brow_thickness": "thickness of the eyebrows",
    "brow_arch": "flat (-) or arched (+) eyebrows",
    "brow_tilt": "outer ends low (-) or high (+)",
    "brow_height": "distance of the eyebrows from the eyes",
    "brow_length": "length of the eyebrows",
    "brow_darkness": "faint (-) or dark (+) eyebrows",
    "hair_darkness": "blond (-) or black (+) hair",
    "hair_redness": "ash (-) or red (+) hair",
    "hair_volume": "flat (-) or big (+) hair",
    "hairline": "low (-) or high (+) forehead",
    "widows_peak": "round (-) or pointed (+) hairline",
    "hair_length": "cropped (-) or long (+) hair",
    "hair_parting": "side of the parting",
    "hair_curl": "straight (-) or curly (+) hair",
    "hair_fringe": "swept back (-) or a fringe (+)",
    "balding": "how early the hair goes",
    "beard": "none (-) or full (+) beard",
    "beard_shape": "goatee (-) or side whiskers (+)",
    "moustache": "none (-) or thick (+) moustache",
    "neck_width": "width of the neck",
}
IDENTITY_DIM = len(TRAITS)


def sample_people(n: int, rng: np.random.Generator) -> Float32[np.ndarray, "n c"]:
    """n people of the world's own population: standard normal, independent in every trait."""
    return rng.standard_normal((n, IDENTITY_DIM)).astype(np.float32)
