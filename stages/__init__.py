"""The six stations, in belt order.

sample    draws people who do not exist, as vectors in a generator's space, and keeps those unlike everyone kept before.
plan      gives each person its photographs: attributes and one seed per row.
generate  makes the pictures of a chunk of the plan.
embed     finds the faces, aligns them to 112x112, and embeds them as unit vectors.
judge     measures every face by every rule and writes a verdict; it never drops, reorders or changes a picture.
pack      writes the survivors into one tar shard, and every row, kept or not, into one ledger part.

A station is a plain callable. It knows nothing of Ray or Hydra, and meets the others only in `stages.records`.
"""
