"""Published sizes, and the classes and images that they are for."""

CIFAR = (100, (32, 32, 3))
IMAGENET = (1000, (224, 224, 3))
PROTOCOLS = {  # of the names that are not here: CIFAR
  'imagenet_resnet18': IMAGENET,
  'imagenet_resnet34': IMAGENET,
  'imagenet_resnet50': IMAGENET,
  'imagenet_resnet101': IMAGENET,
  'imagenet_mobilenet_v1': IMAGENET,
  'vit_tiny': IMAGENET,
  'vit_small': IMAGENET,
  'vit_base': IMAGENET,
  'deit_tiny': IMAGENET,
  'deit_small': IMAGENET,
  'deit_base': IMAGENET,
  'efficientnet_b0': IMAGENET,
  'efficientnet_lite0': IMAGENET,
  'convnext_tiny': IMAGENET,
  'convnext_small': IMAGENET,
  'convnext_base': IMAGENET,
  'deit_tiny_distilled': IMAGENET,
  'deit_small_distilled': IMAGENET,
  'deit_base_distilled': IMAGENET,
  'rvt_tiny': IMAGENET,
  'rvt_small': IMAGENET,
}

# A ViT of width D has 12 blocks of 12 D² + 13 D, and 16² 3 D + D (patches), D
# (class), 197 D (positions), 2 D (last norm) and 1000 D + 1000 (head).
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
  'wrn_28_4': 5_872_180,
  'wrn_40_1': 569_780,
  'wrn_40_2': 2_255_156,
  'vgg8': 3_965_028,
  'vgg11': 9_277_284,
  'vgg13': 9_462_180,
  'vgg16': 14_774_436,
  'vgg19': 20_086_692,
  'resnet18': 11_220_132,
  'resnet34': 21_328_292,
  'resnet50': 23_705_252,
  'imagenet_resnet18': 11_689_512,
  'imagenet_resnet34': 21_797_672,
  'imagenet_resnet50': 25_557_032,
  'imagenet_resnet101': 44_549_160,
  'mobilenet_v2': 812_836,
  'imagenet_mobilenet_v1': 4_231_976,
  'shufflenet_v1': 949_258,
  'shufflenet_v2': 1_355_528,
  'vit_tiny': 5_717_416,
  'vit_small': 22_050_664,
  'vit_base': 86_567_656,
  'deit_tiny': 5_717_416,
  'deit_small': 22_050_664,
  'deit_base': 86_567_656,
  'efficientnet_b0': 5_288_548,
  'efficientnet_lite0': 4_652_008,
  'convnext_tiny': 28_589_128,
  'convnext_small': 50_223_688,
  'convnext_base': 88_591_464,
  'deit_tiny_distilled': 5_910_800,
  'deit_small_distilled': 22_436_432,
  'deit_base_distilled': 87_338_192,
  'rvt_tiny': 8_646_376,
  'rvt_small': 22_148_392,
  'mlp': 207_332,  # 3072 x 64 + 64 + 64 x 64 + 64 + 64 x 100 + 100
  'mlp128': 422_756,  # 3072 x 128 + 128 + 128 x 128 + 128 + 128 x 100 + 100
  'linear': 307_300,  # 3072 x 100 + 100
}

# A ViT has 196 16² 3 D (patches), 12 blocks of 197 12 D², and 1000 D (head).
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
  'wrn_28_4': 845_620_224,
  'wrn_40_1': 83_286_272,
  'wrn_40_2': 327_610_880,
  'vgg8': 96_192_512,
  'vgg11': 209_438_720,
  'vgg13': 284_936_192,
  'vgg16': 398_182_400,
  'vgg19': 511_428_608,
  'resnet18': 555_468_800,
  'resnet34': 1_159_448_576,
  'resnet50': 1_298_014_208,
  'imagenet_resnet18': 1_814_073_344,
  'imagenet_resnet34': 3_663_761_408,
  'imagenet_resnet50': 4_089_184_256,
  'imagenet_resnet101': 7_801_405_440,
  'mobilenet_v2': 6_523_648,
  'imagenet_mobilenet_v1': 568_740_352,
  'shufflenet_v1': 38_691_456,
  'shufflenet_v2': 44_504_448,
  'vit_tiny': 1_074_851_328,
  'vit_small': 4_241_218_560,
  'vit_base': 16_848_500_736,
  'deit_tiny': 1_074_851_328,
  'deit_small': 4_241_218_560,
  'deit_base': 16_848_500_736,
  'efficientnet_b0': 385_814_752,
  'efficientnet_lite0': 385_187_552,
  'convnext_tiny': 4_455_531_264,
  'convnext_small': 8_683_712_256,
  'convnext_base': 15_354_729_472,
  'deit_tiny_distilled': 1_080_351_744,
  'deit_small_distilled': 4_262_836_224,
  'deit_base_distilled': 16_934_203_392,
  'rvt_tiny': 1_133_130_720,
  'rvt_small': 4_291_189_344,
  'mlp': 207_104,  # 3072 x 64 + 64 x 64 + 64 x 100
  'mlp128': 422_400,  # 3072 x 128 + 128 x 128 + 128 x 100
  'linear': 307_200,  # 3072 x 100
}

# The shallowest of each kind of block; the others have more of the same blocks.
SHALLOW = {
  'resnet8',
  'wrn_16_1',
  'vgg8',
  'resnet18',
  'imagenet_resnet50',
  'mobilenet_v2',
  'imagenet_mobilenet_v1',
  'shufflenet_v1',
  'shufflenet_v2',
  'efficientnet_b0',
  'efficientnet_lite0',
  'convnext_tiny',
  'vit_tiny',
  'deit_tiny_distilled',
  'rvt_tiny',
  'mlp',
  'linear',
}

# Nothing between image and head that could be wider.
FIXED = {'linear'}

# Shapes without the batch; each stage has a '_pre' tap of the same shape, but
# not in the networks of LINEAR, whose stages end without an activation.
LINEAR = {
  'mobilenet_v2',
  'vit_tiny',
  'vit_small',
  'vit_base',
  'deit_tiny',
  'deit_small',
  'deit_base',
  'efficientnet_b0',
  'efficientnet_lite0',
  'convnext_tiny',
  'convnext_small',
  'convnext_base',
  'deit_tiny_distilled',
  'deit_small_distilled',
  'deit_base_distilled',
  'rvt_tiny',
  'rvt_small',
}
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
WIDE_4 = {
  'stem': (32, 32, 16),
  'stage1': (32, 32, 64),
  'stage2': (16, 16, 128),
  'stage3': (8, 8, 256),
  'pooled': (256,),
}
VGG = {
  'stem': (32, 32, 64),
  'stage1': (16, 16, 128),
  'stage2': (8, 8, 256),
  'stage3': (4, 4, 512),
  'stage4': (4, 4, 512),
  'pooled': (512,),
}
BASIC = {
  'stem': (32, 32, 64),
  'stage1': (32, 32, 64),
  'stage2': (16, 16, 128),
  'stage3': (8, 8, 256),
  'stage4': (4, 4, 512),
  'pooled': (512,),
}
BOTTLENECK = {
  'stem': (32, 32, 64),
  'stage1': (32, 32, 256),
  'stage2': (16, 16, 512),
  'stage3': (8, 8, 1024),
  'stage4': (4, 4, 2048),
  'pooled': (2048,),
}
LARGE_BASIC = {
  'stem': (112, 112, 64),
  'stage1': (56, 56, 64),
  'stage2': (28, 28, 128),
  'stage3': (14, 14, 256),
  'stage4': (7, 7, 512),
  'pooled': (512,),
}
LARGE_BOTTLENECK = {
  'stem': (112, 112, 64),
  'stage1': (56, 56, 256),
  'stage2': (28, 28, 512),
  'stage3': (14, 14, 1024),
  'stage4': (7, 7, 2048),
  'pooled': (2048,),
}
MOBILE_1 = {
  'stage1': (56, 56, 128),
  'stage2': (28, 28, 256),
  'stage3': (14, 14, 512),
  'stage4': (7, 7, 1024),
  'pooled': (1024,),
}
MOBILE_2 = {
  'stem': (16, 16, 16),
  'stage1': (16, 16, 12),
  'stage2': (8, 8, 16),
  'stage3': (4, 4, 48),
  'stage4': (2, 2, 160),
  'pooled': (1280,),
}
SHUFFLE_1 = {
  'stem': (32, 32, 24),
  'stage1': (16, 16, 240),
  'stage2': (8, 8, 480),
  'stage3': (4, 4, 960),
  'pooled': (960,),
}
SHUFFLE_2 = {
  'stem': (32, 32, 24),
  'stage1': (16, 16, 116),
  'stage2': (8, 8, 232),
  'stage3': (4, 4, 464),
  'pooled': (1024,),
}
VIT_TINY = {
  'stem': (197, 192),
  'stage1': (197, 192),
  'stage2': (197, 192),
  'stage3': (197, 192),
  'stage4': (197, 192),
  'pooled': (192,),
}
VIT_SMALL = {
  'stem': (197, 384),
  'stage1': (197, 384),
  'stage2': (197, 384),
  'stage3': (197, 384),
  'stage4': (197, 384),
  'pooled': (384,),
}
VIT_BASE = {
  'stem': (197, 768),
  'stage1': (197, 768),
  'stage2': (197, 768),
  'stage3': (197, 768),
  'stage4': (197, 768),
  'pooled': (768,),
}
EFFICIENT = {
  'stem': (112, 112, 32),
  'stage1': (112, 112, 16),
  'stage2': (56, 56, 24),
  'stage3': (28, 28, 40),
  'stage4': (14, 14, 112),
  'stage5': (7, 7, 320),
  'pooled': (1280,),
}
CONVNEXT = {
  'stem': (56, 56, 96),
  'stage1': (56, 56, 96),
  'stage2': (28, 28, 192),
  'stage3': (14, 14, 384),
  'stage4': (7, 7, 768),
  'pooled': (768,),
}
CONVNEXT_BASE = {
  'stem': (56, 56, 128),
  'stage1': (56, 56, 128),
  'stage2': (28, 28, 256),
  'stage3': (14, 14, 512),
  'stage4': (7, 7, 1024),
  'pooled': (1024,),
}


def distilled(d):
  """The taps of a DeiT with a distillation token and D channels."""
  return {
    'stem': (198, d),
    'stage1': (198, d),
    'stage2': (198, d),
    'stage3': (198, d),
    'stage4': (198, d),
    'pooled': (d,),
    'pooled_dist': (d,),
    'head_class': (1000,),
    'head_dist': (1000,),
  }


RVT_TINY = {
  'stem': (14, 14, 192),
  'stage1': (14, 14, 192),
  'stage2': (7, 7, 384),
  'pooled': (384,),
}
RVT_SMALL = {
  'stem': (14, 14, 384),
  'stage1': (14, 14, 384),
  'pooled': (384,),
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
  'wrn_28_4': WIDE_4,
  'wrn_40_1': NARROW,
  'wrn_40_2': WIDE_2,
  'vgg8': VGG,
  'vgg11': VGG,
  'vgg13': VGG,
  'vgg16': VGG,
  'vgg19': VGG,
  'resnet18': BASIC,
  'resnet34': BASIC,
  'resnet50': BOTTLENECK,
  'imagenet_resnet18': LARGE_BASIC,
  'imagenet_resnet34': LARGE_BASIC,
  'imagenet_resnet50': LARGE_BOTTLENECK,
  'imagenet_resnet101': LARGE_BOTTLENECK,
  'mobilenet_v2': MOBILE_2,
  'imagenet_mobilenet_v1': MOBILE_1,
  'shufflenet_v1': SHUFFLE_1,
  'shufflenet_v2': SHUFFLE_2,
  'vit_tiny': VIT_TINY,
  'vit_small': VIT_SMALL,
  'vit_base': VIT_BASE,
  'deit_tiny': VIT_TINY,
  'deit_small': VIT_SMALL,
  'deit_base': VIT_BASE,
  'efficientnet_b0': EFFICIENT,
  'efficientnet_lite0': EFFICIENT,
  'convnext_tiny': CONVNEXT,
  'convnext_small': CONVNEXT,
  'convnext_base': CONVNEXT_BASE,
  'deit_tiny_distilled': distilled(192),
  'deit_small_distilled': distilled(384),
  'deit_base_distilled': distilled(768),
  'rvt_tiny': RVT_TINY,
  'rvt_small': RVT_SMALL,
  'mlp': {'stage1': (64,), 'stage2': (64,), 'pooled': (64,)},
  'mlp128': {'stage1': (128,), 'stage2': (128,), 'pooled': (128,)},
  'linear': {'pooled': (3072,)},
}
