"""What finished trials say: reads them from MLflow. Knows nothing of Ray."""
