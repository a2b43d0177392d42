"""The programs of a training step, lowered for a mesh whose devices need not be at hand.

They are the very programs that a run compiles: only their inputs are shapes and shardings instead of arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metaagentx.learn import state as learning
from metaagentx.learn import update as updating
from metaagentx.learn.pack import Batch
from metaagentx.learn.schedule import phase_of
from metaagentx.mesh import sharding
from metaagentx.policy import params
from metaagentx.rollout import engine
from metaagentx.rollout.state import EngineState, Weights, empty_state
from metaagentx.settings import Settings
