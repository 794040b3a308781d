"""What a trial gets of the cluster."""

import ray


def per_trial() -> dict[str, float]:
    """One CPU, and a GPU where there are GPUs.

    Two trials of one thread each get more done on two cores than one trial of two threads.
    """
    gpus = ray.cluster_resources().get("GPU", 0)
    return {"CPU": 1, "GPU": 1} if gpus else {"CPU": 1}


def slots(resources: dict[str, float]) -> int:
    """How many trials of these resources the cluster runs at once."""
    cluster = ray.cluster_resources()
    return max(1, min(int(cluster.get(name, 0) // share) for name, share in resources.items()))
