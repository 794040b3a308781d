"""Networks: backbones (theta), heads (phi), their losses."""
