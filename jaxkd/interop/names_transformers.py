"""Names of the transformers' arrays: timm, torchvision, Hugging Face, authors.

Hugging Face's transformers has separate queries, keys and values. Its version 5
has other names in memory than in its files, which have those of version 4:
'huggingface' are the names of the files, and 'huggingface_memory' those of a
`state_dict()` in version 5.
"""

import flax.linen as nn

from jaxkd.interop.rules import BLOCK, Rule, Rules, numbered
from jaxkd.models.deit import DistilledViT
from jaxkd.models.vit import ViT

TIMM: Rules = (
  (r'^embed', 'patch_embed.proj'),
  (r'^class_token', 'cls_token'),
  (r'^distillation_token', 'dist_token'),
  (r'^position_embedding', 'pos_embed'),
  (r'^norm_last', 'norm'),
  (r'attention/out', 'attn.proj'),
  (r'attention/', 'attn.'),
  (r'/fc', '/mlp.fc'),
)
TORCHVISION: Rules = (
  (r'^embed', 'conv_proj'),
  (r'^position_embedding', 'encoder.pos_embedding'),
  (r'^norm_last', 'encoder.ln'),
  (r'^head', 'heads.head'),
  (r'attention/qkv\.', 'self_attention.in_proj_'),
  (r'attention/out', 'self_attention.out_proj'),
  (r'/norm', '/ln_'),
  (r'/fc1', '/mlp.0'),
  (r'/fc2', '/mlp.3'),
)
HUGGINGFACE: Rules = (
  (r'^embed', 'vit.embeddings.patch_embeddings.projection'),
  (r'^class_token', 'vit.embeddings.cls_token'),
  (r'^distillation_token', 'vit.embeddings.distillation_token'),
  (r'^position_embedding', 'vit.embeddings.position_embeddings'),
  (r'^norm_last', 'vit.layernorm'),
  (r'/norm1', '/layernorm_before'),
  (r'/norm2', '/layernorm_after'),
)
FILES: Rules = (
  (r'attention/qkv', 'attention.attention.{query,key,value}'),
  (r'attention/out', 'attention.output.dense'),
  (r'/fc1', '/intermediate.dense'),
  (r'/fc2', '/output.dense'),
)
MEMORY: Rules = (
  (r'attention/qkv', 'attention.{q_proj,k_proj,v_proj}'),
  (r'attention/out', 'attention.o_proj'),
  (r'/fc', '/mlp.fc'),
)


def vit(net: ViT) -> dict[str, Rules]:
  """Returns the names of a ViT, or of a DeiT without a distillation token."""

  def by_number(template: str) -> Rule:
    ours = [
      f'stage{i}_block{j}/'
      for i, n in enumerate(net.blocks, start=1)
      for j in range(n)
    ]
    theirs = [template.format(i) for i, _ in enumerate(ours)]
    return numbered(r'^stage\d+_block\d+/', theirs, ours)

  common: Rules = ((r'^head', 'classifier'), *HUGGINGFACE)
  return {
    'timm': (*TIMM, by_number('blocks.{}.')),
    'torchvision': (
      *TORCHVISION,
      by_number('encoder.layers.encoder_layer_{}.'),
    ),
    'huggingface': (*common, *FILES, by_number('vit.encoder.layer.{}.')),
    'huggingface_memory': (*common, *MEMORY, by_number('vit.layers.{}.')),
  }


def distilled_vit(net: DistilledViT) -> dict[str, Rules]:
  """Returns the names of a DeiT with a distillation token."""
  names = vit(net)
  heads: Rules = (
    (r'^head_dist', 'distillation_classifier'),
    (r'^head', 'cls_classifier'),
  )
  return {'timm': names['timm']} | {
    dialect: (*heads, *names[dialect], (r'^vit\.', 'deit.'))
    for dialect in ('huggingface', 'huggingface_memory')
  }


def rvt(net: nn.Module) -> dict[str, Rules]:
  """Returns the names of an RVT."""
  del net
  rules: Rules = (
    (r'^conv_stem', 'patch_embed.proj.0'),
    (r'^bn_stem', 'patch_embed.proj.1'),
    (r'^embed', 'patch_embed.proj.3'),
    (r'^norm_last', 'norm'),
    (r'^stage(\d+)_pool', lambda m: f'pools.{int(m[1]) - 2}.conv'),
    (BLOCK, lambda m: f'transformers.{int(m[1]) - 1}.blocks.{m[2]}.'),
    (r'attention/out', 'attn.proj'),
    (r'attention/', 'attn.'),
    (r'depthwise', 'dwconv'),
  )
  return {'authors': rules}
