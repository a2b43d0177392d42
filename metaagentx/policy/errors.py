"""What can be wrong with a checkpoint: one class for each way, so that a test or a caller can tell them apart.

Every message names the file and the tensors or keys, and says what would be right.
"""

from __future__ import annotations

from collections.abc import Collection


class WeightsError(ValueError):
    """A checkpoint that cannot be this model's."""


class NoCheckpoint(WeightsError):
    """Nothing is at the path, and it cannot be fetched."""


class NoConfig(WeightsError):
    """The directory has no config.json."""


class NoWeights(WeightsError):
    """The directory has no safetensors files."""


class MissingFile(WeightsError):
    """The index names a file that is not there."""


class DamagedFile(WeightsError):
    """A file that cannot be parsed, or ends too early."""


class MissingTensors(WeightsError):
    """The model needs tensors that no file holds."""


class NeverSet(WeightsError):
    """The index promises tensors in files that do not hold them."""


class SetTwice(WeightsError):
    """Two files hold the same tensor."""


class UnexpectedTensors(WeightsError):
    """The files hold tensors that the model has no use for: it would not be the model that was trained."""


class WrongShape(WeightsError):
    """Tensors of other shapes than the config's."""


class WrongDtype(WeightsError):
    """Tensors stored as something other than bfloat16, float16 or float32."""


class TiedHeadDiffers(WeightsError):
    """The config ties the head to the embedding, and the files hold a head that is not the embedding."""


class UnsupportedGguf(WeightsError):
    """A GGUF file of an architecture, quantisation or position scheme that is not read here."""


class NoTokenizer(WeightsError):
    """The directory has no tokenizer, or one that cannot be read."""


class NoChatTemplate(WeightsError):
    """A tokenizer that does not say how a conversation is written."""


class VocabularyTooLarge(WeightsError):
    """A tokenizer with ids beyond the model's embedding."""


def some(names: Collection[str], shown: int = 3) -> str:
    """The first few of `names` in order, and how many more there are."""
    first = ", ".join(sorted(names)[:shown])
    return first if len(names) <= shown else f"{first} and {len(names) - shown} more"
