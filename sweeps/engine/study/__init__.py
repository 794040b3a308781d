"""The definition of a sweep: the study, its search space and its objective."""
