"""Helpful answers to wrong names and wrong settings."""

import pytest

from jaxkd import catalog

NUMBERS = {'one': 1, 'two': 2, 'three': 3}


def function(temperature, weight=1.0):
  return temperature, weight


def test_lookup_finds():
  assert catalog.lookup('number', NUMBERS, 'two') == 2


def test_lookup_suggests_and_lists():
  with pytest.raises(KeyError) as error:
    catalog.lookup('number', NUMBERS, 'thre')
  assert str(error.value) == (
    "no number 'thre'. Did you mean 'three'? Available: one, three, two"
  )


def test_lookup_does_not_suggest_distant_names():
  with pytest.raises(KeyError) as error:
    catalog.lookup('number', NUMBERS, 'zzz')
  assert str(error.value) == "no number 'zzz'. Available: one, three, two"


def test_the_nearest_names_come_first():
  text = catalog.suggestion('resnet8x', ['vgg8', 'resnet8', 'resnet8x4'])
  assert text.startswith("Did you mean 'resnet8x4' or 'resnet8'? ")


def test_call_passes_the_settings_on():
  assert catalog.call('f', function, {'temperature': 2}) == (2, 1.0)
  assert catalog.call('f', function, {'weight': 3, 'temperature': 2}) == (2, 3)


def test_call_explains_an_unknown_setting():
  with pytest.raises(ValueError, match="f takes no setting 'temprature'. Did"):
    catalog.call('f', function, {'temprature': 2})


def test_call_explains_a_missing_setting():
  with pytest.raises(ValueError, match="f needs the setting 'temperature'"):
    catalog.call('f', function, {'weight': 2})


def test_call_checks_the_types_of_annotations():
  def function(switch: bool = True, name: str | None = None, size: int = 3):
    return switch, name, size

  assert catalog.call('thing', function, {'switch': False}) == (False, None, 3)
  assert catalog.call('thing', function, {'name': None})[1] is None
  for wrong, words in (
    ({'switch': 'false'}, 'switch must be True or False'),
    ({'switch': 1}, 'switch must be True or False'),
    ({'name': 3}, 'name must be a string'),
    ({'name': True}, 'name must be a string'),
    ({'size': True}, 'size must be a whole number'),
  ):
    with pytest.raises(ValueError, match=f'thing: {words}, got'):
      catalog.call('thing', function, wrong)


def test_call_does_not_change_the_errors_of_the_function():
  def broken(x):
    raise TypeError('from inside')

  with pytest.raises(TypeError, match='from inside'):
    catalog.call('broken', broken, {'x': 1})
