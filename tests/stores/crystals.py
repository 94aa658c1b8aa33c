"""Small crystals that the tests of the ingest share."""

import numpy as np

from wyloop.models.crystal import Crystal

FCC = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
NACL = Crystal(5.64 * FCC, ("Na", "Cl"), np.array([[0.0] * 3, [0.5] * 3]))
GAAS = Crystal(5.65 * FCC, ("Ga", "As"), np.array([[0.0] * 3, [0.25] * 3]))
SILICON = Crystal(5.43 * FCC, ("Si", "Si"), np.array([[0.0] * 3, [0.25] * 3]))
