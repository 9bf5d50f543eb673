"""Flow of solution procedure on CIFAR-100: features first, then labels.

Paper: Yim et al., CVPR 2017,
https://openaccess.thecvf.com/content_cvpr_2017/html/Yim_A_Gift_From_CVPR_2017_paper.html.
Taps and the first phase, 30 epochs at the student's learning rate, are those of
the CIFAR-100 distillation benchmark (Tian, Krishnan, Isola, 2020,
https://arxiv.org/abs/1910.10699), the same for all pairs.

Command:

  jaxkd train fsp_cifar --workdir=runs/fsp
  jaxkd train fsp_cifar:resnet56,resnet20 --workdir=runs/fsp_resnet20

It is defined between networks with equal numbers of channels; for others
(wrn_40_2,wrn_40_1 and all pairs of two families) method.objective.connect=True
adds learned connectors, which neither paper nor benchmark has.

Control: kd_cifar.py and, in the same run, baseline=True, the student without a
teacher.

Cost: 270 epochs. Not run to their end here.

Expected (published by RepDistiller, last epoch): resnet32x4 -> resnet8x4
72.62 % (72.50 % without a teacher, 73.33 % by KD); resnet56 -> resnet20 69.95 %
(69.06 %, 70.66 %).
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark."""
  config = benchmark(pair)
  config.method = dict(
    name='pretrained',
    objective=dict(name='fsp', connect=False),
    pretraining_epochs=30,
    label_weight=1.0,
  )
  return config
