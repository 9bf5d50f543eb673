"""The tree of settings that every config file fills, and its records.

`default()` is the whole tree; a config file changes values in it and adds the
keyword arguments of its method. Any other key is an error. Each number has its
range in `jaxkd.catalog.limits`.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from ml_collections import ConfigDict, FieldReference

Config = Any  # an ml_collections.ConfigDict, whose values are of any type

TEACHER = dict(
  name='resnet32x4',
  width=1.0,
  settings=dict(),
  taps=dict(),
  checkpoint='',  # '': trained first, or from the cache; 'bayes': p*(y|x)
  # Of a file with several sets of weights: average raw, or their key in the
  # file; '': the average if there is one.
  weights='',
  # Its input and classes; by default its checkpoint's, or the data's.
  image_size=0,  # height and width
  channels=0,  # 1 or 3
  mean=(),  # of pixels between 0 and 1
  std=(),
  # {its class: the data's}, a .json or .csv file of it, or 'same'
  classes='',
  unmapped='renormalise',  # or the class that its other classes belong to
  allow_guessing=False,  # whether it may be no better than guessing
  # How it is trained, where it has no checkpoint.
  loss='cross_entropy',  # brier square_logits binary_cross_entropy
  reduction='sum',  # of squared errors over the classes; or mean
  scale=1.0,  # factor on the loss
  read_out='',  # softmax clip simplex; '': the one that fits the loss
  cross_entropy_epochs=0,  # first, by cross-entropy in the loss's place
  blend_epochs=0,  # then, from cross-entropy to the loss
  epochs=0,  # 0: as the student
  stop=0.0,  # the training ends early; a fraction, or epochs; 0: never
  learning_rate=0.0,  # 0: as the student
  start='',  # a checkpoint to start from; '': random values
  problem='',  # its checkpoint's, see problems.CATALOG; '': the card's
  seed=0,  # its own, so that students of several seeds share it
  outputs='',  # a file of --mode=store: the teacher itself is not needed
  # Outputs by view, of all frozen networks: auto off device host disk.
  cache='auto',
  cache_dtype='float32',  # which is exact; float16 bfloat16
  cache_gigabytes=4.0,  # that the table of a network may have
)
OPTIMIZER = dict(
  name='sgd',  # adamw dot
  learning_rate=0.05,
  rates=dict(),  # owner -> its own learning rate
  momentum=0.9,
  nesterov=False,
  weight_decay=5e-4,
  decay='all',  # or kernels: biases, norms, tokens, positions do not
  clip_norm=0.0,  # 0: no clipping
  betas=(0.9, 0.999),
  eps=1e-8,
  delta=0.075,  # of dot: guides' momentum is so much more, labels' less
  ema=0.0,  # decay of the weights' moving average, less at first; 0: none
)
SCHEDULE = dict(
  name='milestones',  # constant cosine
  milestones=(0.625, 0.75, 0.875),  # 150, 180, 210 of 240 epochs
  factor=0.1,
  warmup_epochs=0.0,
  final=0.0,  # where the cosine ends, as a fraction of the peak
)
# Many runs in one command; see jaxkd/runs/study.py.
STUDY = dict(
  seeds=(),  # a run for each; (): one, of `seed`
  vary=('seed',),  # the settings that take the value of a seed
  recipes=dict(),  # name -> a tree of settings that differ
  only=(),  # names of the recipes to run; (): all
  together=False,  # all seeds at once, in memory: for small networks
  columns=('student/top1',),  # of the table: NETWORK/METRIC
  outcome='student/top1',  # compared with the baseline's, seed by seed
  baseline='',  # a recipe, the same in each group; '': the first of each
  against='',  # drawn against the outcome, with their rank correlation
)
# Where metrics go, besides metrics.jsonl.
LOG = dict(
  tensorboard=True,  # events and pictures, in the run's folder
  wandb='',  # PROJECT or ENTITY/PROJECT of Weights & Biases; '': none
)
# What --mode=store writes.
STORE = dict(
  views=1,  # of each image: epoch e shows view e mod views
  top=0,  # of the largest logits; 0: all
  dtype='float16',  # float32 bfloat16
  seed=0,  # of the views
)


def default() -> Config:
  """Returns the tree, with the settings of the CIFAR-100 benchmark."""
  return of_tree(
    dict(
      seed=0,
      epochs=240,
      batch_size=64,  # over all devices
      compute_dtype='float32',  # or bfloat16; parameters stay float32
      baseline=False,  # also train the student's twin from labels alone
      kd_baseline=False,  # also distil a twin from the teacher, by plain KD
      save_every_steps=0,  # besides the save after each epoch; 0: none
      allow_changed=(),  # what may differ when resumed: config data checkpoint
      cache='',  # of trained teachers; '': $JAXKD_CACHE or ~/.cache/jaxkd
      data=dict(
        name='cifar100',  # digits cifar10 synthetic tfds:NAME folder:PATH ...
        dir='',  # '': $JAXKD_DATA or ~/.cache/jaxkd/data
        few_shot=0,  # training examples for each class; 0: all
        validation=0,  # for each class, held out to be tested on
        hold_out=0.0,  # of each class: a fraction, or examples; 0: none
        hold_out_seed=0,
        image_size=0,  # of folders and TFDS; 0: chosen from the images
        channels=0,  # likewise, 3 or 1; 0: 1 if all images are grey
        test='',  # likewise, the name of the test split; '': test or val
        augment='default',  # none flip crop crop_flip
        settings=dict(),  # further arguments of the data set's loader
      ),
      student=dict(
        name='resnet8x4',  # or your own: 'package.module:attribute'
        width=1.0,  # channels, in multiples of the architecture's
        branches=1,  # of its convolutions while it is trained, 1 to 6
        settings=dict(),  # further arguments of the architecture
        taps=dict(),  # further ones: name -> 'PATH/OF/MODULE' or '...:input'
        checkpoint='',  # to start from
        weights='',  # of a file with several: see teacher.weights
        image_size=0,  # height and width of its input; 0: the data's
      ),
      teacher=TEACHER,
      store=STORE,
      method=dict(name='kd'),  # and the method's keyword arguments
      optimizer=OPTIMIZER,
      schedule=SCHEDULE,
      study=STUDY,
      log=LOG,
    )
  )


# The checkpoint of a teacher that is the data's Bayes posterior.
BAYES = 'bayes'

# Networks that the CIFAR-100 benchmark trains at a lower rate.
LIGHT = ('mobilenet_v2', 'shufflenet_v1', 'shufflenet_v2')
LIGHT_RATE = 0.01


def of_tree(tree: Mapping[str, Any]) -> Config:
  """Returns a config of plain values.

  Settings that are a string or a mapping stay what they are: their keys may
  have dots, which those of a ConfigDict may not.
  """
  tree = {**tree, 'teacher': dict(tree['teacher'])}
  classes = tree['teacher'].pop('classes', '')
  config = cast(Any, ConfigDict(tree))
  config.teacher['classes'] = FieldReference('', field_type=object)
  config.teacher.classes = classes
  return config


def benchmark(pair: str) -> Config:
  """Returns `default` with a pair of the CIFAR-100 benchmark and its rates.

  Args:
    pair: 'TEACHER,STUDENT', names of models.

  Raises:
    ValueError: not two names.
  """
  teacher, comma, student = pair.partition(',')
  if not (teacher and comma and student):
    raise ValueError(
      f'{pair!r} is not a pair TEACHER,STUDENT such as resnet32x4,resnet8x4'
    )
  config = default()
  config.teacher.name, config.student.name = teacher, student
  rate = config.optimizer.learning_rate
  rates = [LIGHT_RATE if x in LIGHT else rate for x in (teacher, student)]
  if rates[0] != rates[1]:  # otherwise the teacher has the student's
    config.teacher.learning_rate = rates[0]
  config.optimizer.learning_rate = rates[1]
  return config


# The value, in a config file, of a setting that its user must set.
REQUIRED = '(required)'

# Their keys are arguments of functions, or names of networks or taps.
FREE = (
  'data.settings',
  'method',
  'optimizer.rates',
  'student.settings',
  'student.taps',
  'study.recipes',
  'teacher.classes',
  'teacher.settings',
  'teacher.taps',
)
# Settings that may differ within one run: locations, what may have changed, and
# where metrics and cached outputs go.
PLACES = (
  'cache',
  'data.dir',
  'allow_changed',
  'log.tensorboard',
  'log.wandb',
  'teacher.cache',
  'teacher.cache_gigabytes',
)


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a resolved config with today's names of the teacher's settings.

  Args:
    settings: as any version wrote them: a config, or a recipe of a study.
  """
  today = dict(settings)
  teacher, study = today.get('teacher'), today.get('study')
  if isinstance(teacher, Mapping) and 'cache_outputs' in teacher:
    teacher = dict(teacher)
    cached = teacher.pop('cache_outputs')
    dtype = today.get('store', {}).get('dtype', STORE['dtype'])
    today['teacher'] = {
      **teacher,
      'cache': 'disk' if cached else 'off',
      'cache_dtype': dtype if cached else TEACHER['cache_dtype'],
    }
  if isinstance(study, Mapping) and study.get('recipes'):
    recipes = {
      name: renamed(x) if isinstance(x, Mapping) else x
      for name, x in study['recipes'].items()
    }
    today['study'] = {**study, 'recipes': recipes}
  return today


def missing(config: Config) -> list[str]:
  """Returns the settings that a config file leaves to its user."""
  return [key for key, value in flat(config.to_dict()) if value == REQUIRED]


def as_json(value: Any) -> Any:
  """Returns a value as it is after JSON: tuples are lists.

  An objective that is not of the catalogue is its name and settings.
  """
  return json.loads(json.dumps(_recorded(value)))


def _recorded(value: Any) -> Any:
  """Returns a value whose objectives are mappings, like those of a config."""
  if isinstance(value, tuple) and hasattr(value, '_fields'):  # an Objective
    own: Any = value
    return _recorded({'name': own.name, **own.settings})
  if isinstance(value, Mapping):
    return {key: _recorded(each) for key, each in value.items()}
  if isinstance(value, list | tuple):
    return [_recorded(each) for each in value]
  return value


def resolved(config: Config) -> dict[str, Any]:
  """Returns the config as plain JSON values, to be kept with the run."""
  return as_json({**config.to_dict(), 'method': method_settings(config)})


def method_settings(config: Config) -> dict[str, Any]:
  """Returns the section `method`, with its mappings as mappings.

  Where the flag --config.method.objective="{'kd': 0.9}" replaces a string, the
  config has a string again.

  Raises:
    ValueError: a string that begins like a mapping but is not one.
  """
  return {k: _mapping(k, x) for k, x in config.method.to_dict().items()}


def _mapping(key: str, value: Any) -> Any:
  if not (isinstance(value, str) and value.lstrip().startswith('{')):
    return value
  try:
    return ast.literal_eval(value.strip())
  except (SyntaxError, ValueError) as error:
    raise ValueError(
      f'method.{key} must be a name or a mapping like'
      f" {{'kd': 0.9, 'crd': 0.8}}, got {value!r}"
    ) from error


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Returns a line for each setting that differs: 'key: old -> new'.

  `PLACES` are not compared. A setting that did not exist yet had its
  default.
  """
  flat_new = dict(flat(new))
  since = {
    key: value
    for key, value in flat(as_json(default().to_dict()))
    if key in flat_new and not key.startswith(tuple(f'{x}.' for x in FREE))
  }
  flat_old = {**since, **dict(flat(old))}
  return [
    f'{key}: {flat_old.get(key)!r} -> {flat_new.get(key)!r}'
    for key in sorted({*flat_old, *flat_new} - {*PLACES})
    if flat_old.get(key) != flat_new.get(key)
  ]


def flat(tree: Mapping[str, Any], at: str = '') -> Iterator[tuple[str, Any]]:
  """Yields the settings of a tree by name, 'section.key'."""
  for key, value in tree.items():
    if isinstance(value, Mapping):
      yield from flat(value, f'{at}{key}.')
    else:
      yield f'{at}{key}', value
