import numpy as np
class Neighbours:
    def __init__(self, table): self.t = table
    def nearest_other(self, q, own):
        s = (q @ self.t.T).astype(np.float32); s[np.arange(len(q)), own] = -2
        i = s.argmax(1); return s[np.arange(len(q)), i], i
def select_unlike(c, max_cosine, limit):
    kept = []
    for i in range(len(c)):
        if len(kept) < limit and (not kept or (c[kept] @ c[i]).max() <= max_cosine): kept.append(i)
    return np.array(kept, dtype=np.int64)
