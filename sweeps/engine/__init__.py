"""Runs studies with Ray, Optuna and MLflow."""

import logging
import os
import warnings

# Ray reads these when it is imported. The default timeouts are too short for slow machines.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")

# In notebooks, Ray and tqdm (which Optuna imports) ask for ipywidgets, which memmeta does not use.
logging.getLogger("ray.widgets").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="IProgress not found")
