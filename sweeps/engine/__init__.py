"""The machinery of sweeps."""

import os

# Ray reads them as it is imported. By default slow machines do not start it in time.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
