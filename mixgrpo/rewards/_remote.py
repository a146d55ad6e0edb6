"""A reward that another process computes: the client of `python -m mixgrpo serve-reward`, and what both say.

GET /facts -> {"rewards": {name: facts}, "options": {name: options}}. POST /score/{name}, a safetensors body with
images (B, 3, H, W) in fp32 and the prompts as UTF-8 of a JSON list -> {"scores": [B numbers]}, or {"error":
message}. Images travel as they are, not as PNG or JPEG, so scores are those of the same reward in this process.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from mixgrpo.errors import RewardError, UserError
from mixgrpo.rewards._http import RequestError, Server, excerpt, server_url

KIND = "application/octet-stream"
TIMEOUT = 900.0
"""Seconds for one request: 48 images on a CPU, behind another client's."""
TRIES = 6
"""With the waiting in between, half a minute: a restarted server is back by then."""
MAX_BYTES = 256 * 2**20
"""Images in one request; more go in several."""
MAX_BODY = 2 * MAX_BYTES
"""What a server reads: room for an image that alone is larger, and for the prompts."""


def pack(images: Tensor, prompts: Sequence[str]) -> bytes:
    """Images (B, 3, H, W) and B prompts as one body."""
    text = torch.frombuffer(bytearray(json.dumps(list(prompts)).encode()), dtype=torch.uint8)
    return save_tensors({"images": images.detach().float().cpu().contiguous(), "prompts": text})


def unpack(body: bytes) -> tuple[Tensor, list[str]]:
    """What `pack` made. ValueError when the body is something else."""
    try:
        tensors = load_tensors(body)
        images, text = tensors["images"], tensors["prompts"]
        prompts = json.loads(bytes(text.tolist()))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"no safetensors body with images and prompts ({type(error).__name__}: {error})"
        ) from None
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError("prompts are no list of strings")
    if images.dtype != torch.float32:
        raise ValueError(f"images are {images.dtype}, wanted float32")
    return images, prompts


class RemoteReward:
    """Reward `name` of the reward server at `url`; the constructor asks what is served there.

    options: that its server must have been started with.
    UserError: no server, one of another kind, one without this reward, or with other options.
    """

    def __init__(
        self,
        name: str,
        url: str,
        options: Mapping[str, Any] | None = None,
        *,
        timeout: float = TIMEOUT,
        tries: int = TRIES,
    ):
        self.name = name
        self.server = Server(url=server_url(url, name=name), timeout=timeout, tries=tries)
        self.facts: dict[str, str] = self._facts(options or {})

    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B, 3, H, W) in [0, 1] and B prompts -> (B,). RewardError with what the server said."""
        if len(images) == 0:
            return torch.zeros(0)
        part = max(1, MAX_BYTES // (4 * images[0].numel()))
        starts = range(0, len(images), part)
        return torch.cat([self._post(images[i : i + part], prompts[i : i + part]) for i in starts])

    def _post(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        body = pack(images, prompts)

        def once() -> Tensor:
            reply = self.server.request(f"/score/{self.name}", body, KIND)
            scores = reply.get("scores") if isinstance(reply, dict) else None
            if not isinstance(scores, list) or len(scores) != len(images):
                raise RequestError(
                    f"wanted {len(images)} scores, got {excerpt(json.dumps(reply))}", again=False
                )
            return torch.tensor(scores, dtype=torch.float32)

        try:
            return self.server.ask(once)
        except RequestError as error:
            raise RewardError(
                f"reward {self.name} at {self.server.url}: {error}. {self._remedy(error)}"
            ) from None

    def _facts(self, options: Mapping[str, Any]) -> dict[str, str]:
        try:
            reply: Any = self.server.ask(lambda: self.server.request("/facts"))
        except RequestError as error:
            raise UserError(
                f"reward {self.name} at {self.server.url}: {error}. {self._remedy(error)}"
            ) from None
        served = reply.get("rewards") if isinstance(reply, dict) else None
        if not isinstance(served, dict):
            raise UserError(
                f"reward {self.name}: what answers at {self.server.url} is no reward server "
                f"({excerpt(json.dumps(reply))}). {self._start()}"
            )
        if self.name not in served:
            raise UserError(
                f"reward {self.name}: the server at {self.server.url} has {', '.join(served)}. {self._start()}"
            )
        self._refuse_other_options(options, reply.get("options", {}).get(self.name, {}))
        return {str(key): str(value) for key, value in served[self.name].items()}

    def _refuse_other_options(self, asked: Mapping[str, Any], there: Mapping[str, Any]) -> None:
        for option, value in asked.items():
            if option not in there or there[option] != value:
                has = f"{there[option]!r}" if option in there else "unknown"
                raise UserError(
                    f"reward {self.name}: option {option} is {value!r} here and {has} at {self.server.url}. Start the "
                    f"server with --option {self.name}.{option}={value}, or change the option here."
                )

    def _start(self) -> str:
        return f"Start one there: python -m mixgrpo serve-reward --reward {self.name}."

    def _remedy(self, error: RequestError) -> str:
        if not error.connected or error.status == 404:
            return self._start()
        return "Look at the reward server's own log."
