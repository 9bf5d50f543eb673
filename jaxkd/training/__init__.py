"""Training: the joint state, the step, and the loop around it."""
