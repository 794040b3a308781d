"""The tiny study on a real Ray cluster whose only node for trials starts later.

The environment variable LATE_SECONDS is the delay, and LATE_PYTHONPATH is the node's PYTHONPATH.
"""

import os
import subprocess
import sys
from pathlib import Path

from ray.cluster_utils import Cluster
from tiny import STUDY

from sweeps.engine.command_line import main

RAY = Path(sys.executable).with_name("ray")

if __name__ == "__main__":
    size = {"object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **size})
    start = f"{RAY} start --address={cluster.address} --num-cpus=2 --block"
    late = subprocess.Popen(
        ["sh", "-c", f"sleep {os.environ.get('LATE_SECONDS', 4)} && exec {start}"],
        env=os.environ | {"PYTHONPATH": os.environ.get("LATE_PYTHONPATH", "")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Workers import from the driver's working directory first.
    os.chdir(Path(__file__).parent)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        main(STUDY)
    finally:
        late.terminate()
        late.wait()
        cluster.shutdown()
