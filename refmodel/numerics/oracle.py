"""Numerics `oracle`: float64, the truth that float32 implementations round away from.

Every operation is the NumPy function of refmodel/ops but one: products with packed matrices are those of the kernel, which decodes
and multiplies in float64 too, because ops.linear takes many times as long.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from ..ops.experts import by_expert
from .numpy import NUMPY
from .reference import linear

ORACLE = replace(NUMPY, name="oracle", dtype=np.float64, linear=linear, experts=partial(by_expert, linear))
