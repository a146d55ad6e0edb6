"""A client of servers that speak OpenAI's chat completions: vLLM, SGLang, `transformers serve`.

One question about one picture at a time, at temperature 0; several are under way at once.
"""

import base64
import io
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from mixgrpo.rewards._http import RequestError, Server, excerpt

Result = TypeVar("Result")
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Answer:
    """What the model said."""

    text: str
    complete: bool
    """False when it ran into the limit of tokens."""

    @property
    def complete_lines(self) -> str:
        """The lines that were said to their end: a number at the limit may lack its last digits."""
        return self.text if self.complete else self.text.rpartition("\n")[0]


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A model by its name on a server."""

    server: Server
    model: str
    max_tokens: int

    def models(self) -> list[dict[str, Any]]:
        """What GET /v1/models lists, [] where there is no list of what is served.

        `transformers serve` lists its download cache (ids "owner/name", owned by the owner), or fails.
        """
        try:
            listed = self.server.request("/v1/models")
        except RequestError as failed:
            if failed.status in (None, 401, 403):
                raise
            return []
        data = listed.get("data") if isinstance(listed, dict) else None
        entries = [e for e in data or [] if isinstance(e, dict) and isinstance(e.get("id"), str)]
        return [e for e in entries if not e["id"].startswith(f"{e.get('owned_by')}/")]

    def ask(self, question: str, picture: str) -> Answer:
        """The answer to one question about one picture, a data URL. `RequestError` when there is none."""
        content = [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": question},
        ]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        reply = self.server.request("/v1/chat/completions", json.dumps(body).encode())
        try:
            choice = reply["choices"][0]
            text, reason = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError):
            raise RequestError(f"no chat completion: {excerpt(json.dumps(reply))}") from None
        if not isinstance(text, str):
            raise RequestError(f"an answer without text: {excerpt(json.dumps(choice))}")
        return Answer(text, complete=reason != "length")


def data_url(image: Tensor) -> str:
    """An image (3, H, W) in [0, 1] as a JPEG in a data URL, as Unified Reward's authors send it."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def concurrently(
    work: Callable[[int, threading.Event], Result], indices: Sequence[int], *, limit: int
) -> list[Result]:
    """`work(index, stop)` for every index, in order, `limit` at once.

    The first exception is raised at once: what waits is dropped, what runs is told by `stop`.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(limit, thread_name_prefix="chat")
    try:
        futures = [pool.submit(work, index, stop) for index in indices]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        return [future.result() for future in futures]
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
