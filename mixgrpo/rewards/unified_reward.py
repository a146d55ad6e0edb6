"""Unified Reward (Wang et al., 2025): a vision-language model is asked for a number, on a server.

The model runs in its own process or machine, under any server that speaks OpenAI's chat completions
(docs/rewards.md has the commands); nothing is loaded here. Score: the number answered, 1 to 5.
"""

import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mixgrpo.errors import RewardError, UserError
from mixgrpo.rewards._chat import Chat, concurrently, data_url
from mixgrpo.rewards._http import RequestError, Server, excerpt, server_url

NAME = "unified_reward"
KEY = "MIXGRPO_UNIFIED_REWARD_KEY"
"""Environment variable with the key of a server that wants one; it is in no settings and no result."""
HIGHEST = 5.0
NUMBER = r"[\s*]*(\d+(?:\.\d+)?)"
"""As the authors' parsers read it, and bold print as well."""


@dataclass(frozen=True)
class Question:
    """What is asked, {} being the caption, and how the number is found in the answer."""

    text: str
    pattern: str


# The words are the model's interface: it was trained on exactly these (github.com/CodeGoat24/UnifiedReward, MIT).
QUESTIONS = {
    "score": Question(
        "You are given a text caption and a generated image based on that caption. Your task is to evaluate "
        "this image based on two key criteria:\n"
        "1. Alignment with the Caption: Assess how well this image aligns with the provided caption. Consider "
        "the accuracy of depicted objects, their relationships, and attributes as described in the caption.\n"
        "2. Overall Image Quality: Examine the visual quality of this image, including clarity, detail "
        "preservation, color accuracy, and overall aesthetic appeal.\n"
        "Extract key elements from the provided text caption, evaluate their presence in the generated image "
        "using the format: 'element (type): value' (where value=0 means not generated, and value=1 means "
        "generated), and assign a score from 1 to 5 after 'Final Score:'.\n"
        "Your task is provided as follows:\nText Caption: [{}]",
        r"Final Score:" + NUMBER,
    ),
    "semantic": Question(
        "You are presented with a generated image and its associated text caption. Your task is to analyze the "
        "image across multiple dimensions in relation to the caption. Specifically:\n\n"
        "1. Evaluate each word in the caption based on how well it is visually represented in the image. Assign "
        "a numerical score to each word using the format:\n"
        '   Word-wise Scores: [["word1", score1], ["word2", score2], ..., ["wordN", scoreN], '
        '["[No_mistakes]", scoreM]]\n'
        "   - A higher score indicates that the word is less well represented in the image.\n"
        "   - The special token [No_mistakes] represents whether all elements in the caption were correctly "
        "depicted. A high score suggests no mistakes; a low score suggests missing or incorrect elements.\n\n"
        "2. Provide overall assessments for the image along the following axes (each rated from 1 to 5):\n"
        "- Alignment Score: How well the image matches the caption in terms of content.\n"
        "- Coherence Score: How logically consistent the image is (absence of visual glitches, object "
        "distortions, etc.).\n"
        "- Style Score: How aesthetically appealing the image looks, regardless of caption accuracy.\n\n"
        "Output your evaluation using the format below:\n\n---\n\n"
        'Word-wise Scores: [["word1", score1], ..., ["[No_mistakes]", scoreM]]\n\n'
        "Alignment Score (1-5): X\nCoherence Score (1-5): Y\nStyle Score (1-5): Z\n\n"
        "Your task is provided as follows:\nText Caption: [{}]",
        r"Alignment Score \(1-5\):" + NUMBER,
    ),
}


class UnifiedReward:
    """Asks the server about every image; an answer without a number is an error, never a score."""

    name = NAME

    def __init__(self, chat: Chat, *, question_type: str, concurrency: int, checkpoint: str):
        self.chat = chat
        self.question = QUESTIONS[question_type]
        self.concurrency = concurrency
        self.facts = {
            "version": chat.model,
            "checkpoint": checkpoint,
            "scale": "the number answered, 1 to 5; higher is better",
            "backend": "chat completions server",
            "question_type": question_type,
        }

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, H, W) in [0, 1] and B prompts -> (B,). NaN for an image that is not finite.

        RewardError names the prompt of the first question that stayed without an answer.
        """
        images = images.detach().float().cpu()
        scores = torch.full((len(images),), torch.nan)
        finite = images.flatten(1).isfinite().all(1).nonzero().flatten().tolist()

        def ask(index: int, stop: threading.Event) -> float:
            return self._number(images[index], prompts[index], stop)

        answered = concurrently(ask, finite, limit=self.concurrency)
        scores[finite] = torch.tensor(answered, dtype=torch.float32)
        return scores

    def _number(self, image: Tensor, prompt: str, stop: threading.Event) -> float:
        question, picture = self.question.text.format(prompt), data_url(image)

        def once() -> float:
            answer = self.chat.ask(question, picture)
            try:
                return read_number(answer.complete_lines, self.question.pattern)
            except ValueError as error:
                limit = "" if answer.complete else f", cut off at {self.chat.max_tokens} tokens"
                raise RequestError(f"{error}{limit}: {excerpt(answer.text)}") from None

        try:
            return self.chat.server.ask(once, stop)
        except RequestError as failed:
            raise RewardError(
                f"reward {NAME}: no score from {self.chat.server.url} for prompt {prompt!r}: {failed}. "
                f"{_remedy(failed, self.chat.model)}"
            ) from None


def read_number(answer: str, pattern: str) -> float:
    """The number that `pattern` finds first. ValueError when there is none, or none up to 5.

    >>> read_number("cat (animal): 1\\nFinal Score: 3.75", QUESTIONS["score"].pattern)
    3.75
    """
    # The questions ask for 1 to 5; the authors' parser takes what lies between 0 and 1 too, and so does this.
    found = re.search(pattern, answer)
    if found is None:
        raise ValueError("an answer without a score")
    number = float(found[1])
    if number > HIGHEST:
        raise ValueError(f"a score of {found[1]} where 1 to 5 was asked for")
    return number


def load(
    path: str | None,
    device: torch.device,
    *,
    url: str = "http://127.0.0.1:8080",
    model: str = "UnifiedReward",
    question_type: str = "semantic",
    max_tokens: int = 4096,
    concurrency: int = 8,
    timeout: float = 120.0,
    tries: int = 4,
) -> UnifiedReward:
    """The model that the server at `url` calls `model`; asks the server what it serves.

    question_type: "semantic" (the alignment score, as MixGRPO's scripts have it) or "score" (one for all).
    concurrency: questions under way at once. timeout: seconds per try.
    UserError: no server there, another model, a wrong option.
    """
    if path is not None:
        raise UserError(
            f"reward {NAME} has no weights here, got path {path!r}: its server loads them. Remove `path`."
        )
    if question_type not in QUESTIONS:
        raise UserError(
            f"reward {NAME}: question_type {question_type!r} is unknown. There are: {', '.join(QUESTIONS)}."
        )
    numbers = {"max_tokens": max_tokens, "concurrency": concurrency, "tries": tries}
    for option, value in {**numbers, "timeout": timeout}.items():
        if value <= 0 or (option in numbers and value != int(value)):
            raise UserError(
                f"reward {NAME}: {option}={value}, wanted a {'whole ' * (option in numbers)}number above 0."
            )
    key = os.environ.get(KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    server = Server(url=server_url(url, name=NAME), timeout=timeout, tries=tries, headers=headers)
    chat = Chat(server=server, model=model, max_tokens=max_tokens)
    return UnifiedReward(
        chat,
        question_type=question_type,
        concurrency=concurrency,
        checkpoint=_checkpoint(chat),
    )


def _checkpoint(chat: Chat) -> str:
    """What the server says the model's weights are, or the model's name. UserError for another model."""
    url = chat.server.url
    try:
        listed: list[dict[str, Any]] = chat.server.ask(chat.models)
    except RequestError as failed:
        raise UserError(
            f"reward {NAME}: no use of {url}/v1/models: {failed}. {_remedy(failed, chat.model)}"
        ) from None
    served = {entry["id"]: entry for entry in listed}
    if served and chat.model not in served:
        raise UserError(
            f"reward {NAME}: the server at {url} serves {', '.join(served)}, wanted {chat.model}. "
            f"Start it with --served-model-name {chat.model}, or give option model: {next(iter(served))} if that "
            "is a Unified Reward."
        )
    root = served.get(chat.model, {}).get("root")
    return root if isinstance(root, str) else chat.model


def _remedy(failed: RequestError, model: str) -> str:
    if failed.status in (401, 403):
        return f"Put the key that the server was started with into the environment variable {KEY}."
    if failed.status in (400, 404, 422):
        return (
            f"Is it the server of model {model}? Its name there is the server's --served-model-name, option "
            "model here; docs/rewards.md has the commands."
        )
    if not failed.connected:
        return (
            "Start a server there (docs/rewards.md has the commands for vLLM, SGLang and transformers serve), or "
            f'say where it is: option url, or MIXGRPO_REWARDS="{NAME}=http://HOST:PORT".'
        )
    return "Look at the server's log; options of this reward: timeout (seconds), tries, concurrency, max_tokens."
