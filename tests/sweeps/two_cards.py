"""A study on a real Ray cluster whose nodes claim GPUs: a small card and a large one.

Ray is told that the cards exist. The descriptions of the cards are made up.
"""

import os

from ray.cluster_utils import Cluster

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from sweeps.engine.command_line import main
from sweeps.engine.execution import placement
from sweeps.engine.execution.placement import Device
from sweeps.engine.study import Study

MIB = 2**20
CARDS = {"small": 500 * MIB, "large": 4000 * MIB}
OVERHEAD = 100 * MIB

STUDY = Study(
    name="two_cards",
    data=DataConfig(name="glyphs", shots=1, queries=1, eval_queries=1),
    learner=LearnerConfig(filters=16, inner_steps=2, cg_steps=2),
    training=TrainingConfig(iterations=3, evaluations=1, val_tasks=4),
    # The first three fit on any card, 200 on the large one only, and 6000 on none.
    grid={"task_batch": [2, 3, 4, 200, 6000]},
    seeds=1,
)


def described(node):
    kind = placement._accelerator(node)
    return Device(kind, True, 1, CARDS[kind], 0, OVERHEAD, host_overhead=400 * MIB)


if __name__ == "__main__":
    placement._ask_node = described
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for kind in CARDS:
        cluster.add_node(num_cpus=4, num_gpus=1, resources={f"accelerator_type:{kind}": 1})
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        main(STUDY)
    finally:
        cluster.shutdown()
