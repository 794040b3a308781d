"""Memory of a run: predicted, reserved, limited, tabulated."""
