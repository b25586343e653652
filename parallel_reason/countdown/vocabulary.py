"""The embedded model's vocabulary: every number is one token, and so is every control tag of ``spawn_join``."""

from typing import TYPE_CHECKING

from parallel_reason.dialects.spawn_join import SpawnJoin

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LARGEST = 300  # results above it are not searched
MARKS = (",", "=", "+", "-", "*", "/", ":", "|", "_", "no")


def tokenizer() -> "PreTrainedTokenizerFast":
    """A Hugging Face tokenizer whose text reads as ``26+22=48 31 53``: a space only between two words."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *SpawnJoin.tags.values(), *MARKS, *map(str, range(LARGEST + 1))]
    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"\d+|[a-z]+|."), "isolated")]
    )
    core.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<![0-9a-z_]) | (?![0-9a-z_])"), ""),
        ]
    )
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in SpawnJoin.tags.values()])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
