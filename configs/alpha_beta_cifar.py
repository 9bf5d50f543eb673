"""ABKD on CIFAR-100: an alpha-beta divergence in place of KL.

Paper: Wang et al., ICML 2025, https://arxiv.org/abs/2505.04560. For
resnet56,resnet20 exponents and weight are the published code's
(https://github.com/ghwang-s/abkd). For other pairs they are unpublished:
exponents are its defaults, and the weight is that of the first pair, which is
also that of 2 T² KL, its control.

Command:

  jaxkd train alpha_beta_cifar --workdir=runs/alpha_beta
  jaxkd train alpha_beta_cifar:resnet56,resnet20 \
    --workdir=runs/alpha_beta_resnet20

Control: kd_cifar.py with method.label_weight=1 and method.guide_weight=2, the
comparison of the published code.

Cost: not run to its end here.

Expected: no published figure with these settings; the published code reports
the best epoch on the test set.
"""

from jaxkd.config import benchmark

# Alpha and beta. Of other pairs: 0.5 each.
EXPONENTS = {'resnet56,resnet20': (0.8, 0.3)}


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  alpha, beta = EXPONENTS.get(pair, (0.5, 0.5))
  config.method = dict(
    name='distil',
    objective=dict(name='alpha_beta', alpha=alpha, beta=beta, temperature=4.0),
    label_weight=1.0,
    guide_weight=32.0,
  )
  return config
