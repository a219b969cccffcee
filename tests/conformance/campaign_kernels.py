"""Kernels that the tests of campaigns hunt: quick to judge, right and wrong, and one that waits for the test."""

import os
import time
from pathlib import Path

import numpy as np


def zeros(q, k, v):
    return np.zeros((*q.shape[:3], v.shape[3]), q.dtype)


def load_balance_cv(loads):
    mean = loads.mean()
    return np.asarray(np.sqrt(np.square(loads - mean).mean()) / mean if mean > 0 else 0, loads.dtype)


def of_a_sample(loads):
    mean = loads.mean()
    squares = np.square(loads - mean).sum() / loads.dtype.type(max(len(loads) - 1, 1))
    return np.asarray(np.sqrt(squares) / mean if mean > 0 else 0, loads.dtype)


def waits(loads):
    while not Path(os.environ["ATTEST_TEST_FLAG"]).exists():
        time.sleep(0.02)
    return of_a_sample(loads)
