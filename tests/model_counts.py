"""Published sizes: 100 classes, images 32 x 32 x 3."""

COUNTS = {
  'resnet8': 83_892,
  'resnet14': 181_108,
  'resnet20': 278_324,
  'resnet32': 472_756,
  'resnet44': 667_188,
  'resnet56': 861_620,
  'resnet110': 1_736_564,
  'resnet8x4': 1_233_540,
  'resnet32x4': 7_433_860,
  'wrn_16_1': 180_916,
  'wrn_16_2': 703_284,
  'wrn_40_1': 569_780,
  'wrn_40_2': 2_255_156,
  'vgg8': 3_965_028,
  'vgg11': 9_277_284,
  'vgg13': 9_462_180,
  'vgg16': 14_774_436,
  'vgg19': 20_086_692,
  'mlp': 207_332,  # 3072 x 64 + 64 + 64 x 64 + 64 + 64 x 100 + 100
}

MACS = {
  'resnet8': 12_507_392,
  'resnet14': 26_663_168,
  'resnet20': 40_818_944,
  'resnet32': 69_130_496,
  'resnet44': 97_442_048,
  'resnet56': 125_753_600,
  'resnet110': 253_155_584,
  'resnet8x4': 177_071_104,
  'resnet32x4': 1_083_040_768,
  'wrn_16_1': 26_663_168,
  'wrn_16_2': 101_118_464,
  'wrn_40_1': 83_286_272,
  'wrn_40_2': 327_610_880,
  'vgg8': 96_192_512,
  'vgg11': 209_438_720,
  'vgg13': 284_936_192,
  'vgg16': 398_182_400,
  'vgg19': 511_428_608,
  'mlp': 207_104,  # 3072 x 64 + 64 x 64 + 64 x 100
}

# Shapes without the batch; each stage has a '_pre' tap of the same shape.
NARROW = {
  'stem': (32, 32, 16),
  'stage1': (32, 32, 16),
  'stage2': (16, 16, 32),
  'stage3': (8, 8, 64),
  'pooled': (64,),
}
TIMES_4 = {
  'stem': (32, 32, 32),
  'stage1': (32, 32, 64),
  'stage2': (16, 16, 128),
  'stage3': (8, 8, 256),
  'pooled': (256,),
}
WIDE_2 = {
  'stem': (32, 32, 16),
  'stage1': (32, 32, 32),
  'stage2': (16, 16, 64),
  'stage3': (8, 8, 128),
  'pooled': (128,),
}
VGG = {
  'stem': (32, 32, 64),
  'stage1': (16, 16, 128),
  'stage2': (8, 8, 256),
  'stage3': (4, 4, 512),
  'stage4': (4, 4, 512),
  'pooled': (512,),
}
TAPS = {
  'resnet8': NARROW,
  'resnet14': NARROW,
  'resnet20': NARROW,
  'resnet32': NARROW,
  'resnet44': NARROW,
  'resnet56': NARROW,
  'resnet110': NARROW,
  'resnet8x4': TIMES_4,
  'resnet32x4': TIMES_4,
  'wrn_16_1': NARROW,
  'wrn_16_2': WIDE_2,
  'wrn_40_1': NARROW,
  'wrn_40_2': WIDE_2,
  'vgg8': VGG,
  'vgg11': VGG,
  'vgg13': VGG,
  'vgg16': VGG,
  'vgg19': VGG,
  'mlp': {'stage1': (64,), 'stage2': (64,), 'pooled': (64,)},
}
