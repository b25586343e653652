"""The embedded model's vocabulary: every number is one token, and so is every control tag of ``spawn_join``.

Token ids are positions in `WORDS`, and the published weights were trained with them: the order never changes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LARGEST = 300  # the largest number that is a token
TAGS = ("<spawn>", "<sep>", "</spawn>", "<thread>", "<return>", "</thread>", "<join>", "<none>", "</join>")
MARKS = (",", "=", "+", "-", "*", "/", ":", "|", "_", "no")
WORDS = ("<pad>", "<eos>", "<unk>", *TAGS, *MARKS, *map(str, range(LARGEST + 1)))


def tokenizer() -> "PreTrainedTokenizerFast":
    """A Hugging Face tokenizer whose text reads as ``26+22=48 31 53``: a space only between two words."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
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
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
