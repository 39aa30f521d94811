"""Under pytest jaxtyping hangs beartype on every function of the house; an int may stand for a float (PEP 484)."""

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
