"""An early-stopped teacher on CIFAR-100, which also stops teaching early.

Paper: Cho and Hariharan, ICCV 2019, https://arxiv.org/abs/1910.01348. A teacher
that was trained for a part of the epochs only is nearer to a small student; and
towards the end the student learns from the labels alone.

Command:

  jaxkd train eskd_cifar --workdir=runs/eskd
  jaxkd train eskd_cifar:resnet56,resnet8 teacher.epochs=60 \
    --workdir=runs/eskd_60

Settings to vary:
  teacher.epochs=N    a whole, shorter training: its learning rate falls at the
                      same fractions of N epochs
  teacher.stop=N      the long training, stopped after N epochs (with
                      teacher.epochs=0)
  method.guide_weight.epoch=0.75
                      when the teacher's weight becomes 0: a fraction of the
                      training or, from 1 on, an epoch; the labels' is
                      method.label_weight.epoch

Choice: half of the epochs for the teacher, and the first decay of the learning
rate (epoch 150 of 240) for the end of its guidance, at which the labels' weight
goes from 0.1 to 1, so that the loss stays as large. The paper searches both.
Controls: kd_cifar.py, with teacher.epochs=120 and without.

Cost: that of kd_cifar.py, and half of its teacher. Not run to its end here.

Expected: no figure, since the settings are the benchmark's.
"""

from jaxkd.config import benchmark


def get_config(pair: str = 'resnet32x4,resnet8x4'):
  """A pair TEACHER,STUDENT of the benchmark, the teacher in half the time."""
  config = benchmark(pair)
  config.teacher.epochs = 120
  config.method = dict(
    name='kd',
    temperature=4.0,
    label_weight=dict(schedule='step', start=0.1, end=1.0, epoch=0.625),
    guide_weight=dict(schedule='step', start=0.9, end=0.0, epoch=0.625),
  )
  return config
