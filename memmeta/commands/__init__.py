"""The commands of the learner, one module each."""
