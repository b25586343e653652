"""What the traces are for: a model that will be trained, with its tokenizer, its chat template and its dialect."""

from typing import Any

from parallel_reason import InputError, Trace, parse
from parallel_reason.dialects import bind, find
from parallel_reason.prepared import read_prepared
from parallel_reason.prompts import load
from parallel_reason.runtime.replay import problems
from rl.rewriting.stage import RejectionError

THINK = "<think>"


class Target:
    """A model that is trained on the traces; only its tokenizer is loaded."""

    def __init__(self, model: str, dialect: str, prompt: str) -> None:
        """Load a tokenizer.

        Args:
            model: a folder or Hub id.
            prompt: name or file of the prompt under which the model will be asked, of messages.

        Raises:
            InputError, ModelError: there is no tokenizer, it has no chat template, it cannot write the dialect, the
                model was prepared for another one, or the prompt is for another one.
        """
        from transformers import AutoTokenizer

        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise InputError(f"train_model {model!r}: {str(error).splitlines()[0]}") from None
        prepared = read_prepared(model)
        if prepared is not None and prepared.dialect != dialect:
            raise InputError(
                f"train_model {model!r} was prepared for {prepared.dialect!r}; the pipeline is {dialect!r}"
            )
        if not self.tokenizer.chat_template:
            raise InputError(f"train_model {model!r} has no chat template, with which a prompt is written")
        self.model = model
        self.dialect = bind(dialect, self.tokenizer, **(prepared.dialect_options if prepared else {}))
        self.template = load(prompt, dialect=dialect)
        if not self.template.messages:
            raise InputError(f"prompt {self.template.name!r} is a raw text; give one with messages")
        self.tags = tuple(find(dialect).tags.values())
        vocabulary = self.tokenizer.get_vocab()
        self._special = set(self.tokenizer.all_special_ids) - {vocabulary.get(tag) for tag in self.tags}

    def prompt(self, problem: str) -> tuple[str, list[int]]:
        """The prompt of a problem, as text and as token ids; the same as a session writes."""
        messages = self.template.render(problem)
        text: str = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **self.template.chat_template_kwargs
        )
        suffix = self.template.suffix
        if suffix.strip() and not text.rstrip().endswith(suffix.strip()):
            text += suffix
        return text, self._encoded(text)

    def trace(self, name: str, problem: str, text: str) -> Trace:
        """The trace of a training text, with the end of text that a run would have written.

        Args:
            name: under which the trace has its task.

        Raises:
            RejectionError: the dialect's validator finds something wrong.
        """
        prompt, prompt_ids = self.prompt(problem)
        if prompt.rstrip().endswith(THINK):  # some chat templates open it themselves
            text = text.removeprefix(THINK).lstrip("\n")
        ids = [*self._encoded(text), self.tokenizer.eos_token_id]
        if special := [token for token in ids[:-1] if token in self._special]:
            raise RejectionError("has a special token of the model", self.tokenizer.decode(special[:1]))
        if wrong := problems(self.dialect, self.tokenizer, [], ids):
            raise RejectionError("is not well-formed", f"token {wrong[0].at}: {wrong[0].what}")
        trace = parse(self.dialect, self.tokenizer, prompt_ids, ids, self.model)
        trace.task, trace.prompt = name, prompt
        return trace

    def _encoded(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))
