"""jaxkd: knowledge distillation of image classifiers in JAX and Flax.

Symbols, used in every docstring of the project:

  B  batch             H W C  height, width, channels of a map (NHWC)
  K  classes           N  tokens, or examples of a data set
  D  feature width     M  members of an ensemble, or branches
  T  temperature       s, t  student and teacher (learner and guide)
  p, q  probabilities of the teacher and of the student

Arrays are NHWC and float32 unless stated otherwise. Every loss takes the
learner first and the guide second.
"""

__version__ = '0.1.0'
