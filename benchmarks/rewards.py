"""Speed and precision of the four reward networks, and what it is worth to run some of them elsewhere.

    make bench            or            python benchmarks/rewards.py [--depth N] [--batches 1,12,48]

The networks have the sizes of the real ones and random weights, so no download is needed; both towers are
transformers' own classes (for HPS v2.1 and ImageReward that is backend `native`). With --depth N each tower has
N layers in place of its own number; that is 1 on a CPU unless it says otherwise, so that the whole takes minutes.

Table 1: images per second, preprocessing of 720 x 720 pictures and a new prompt for every 12 of them included, and
how far scores in half precision are from fp32's, beside the spread of the scores in a group. On a CPU, which has
no fast fp16, that is timed for single images alone. Table 2: three rewards, two of which are served by processes
of their own, one after the other and at the same time.
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.queues import Queue
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from mixgrpo.rewards import CheckedReward, Reward
from mixgrpo.rewards import _open_clip as open_clip
from mixgrpo.rewards._blip import MAX_TOKENS, VisionSize, native_network, preprocess
from mixgrpo.rewards._checkpoints import Checkpoint
from mixgrpo.rewards._clip import ClipReward, Preprocessing, TransformersTowers
from mixgrpo.rewards._remote import RemoteReward
from mixgrpo.stages.serve_reward import make_server
from mixgrpo.training.scoring import score_all

RESOLUTION = 720
GROUP = 12
"""Images of one prompt."""
SECONDS = 2.0
"""Each figure is the median of the calls in this time, and of three at least (one on a CPU)."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
VIT_H_14 = open_clip.Architecture(
    embed=1024,
    image_size=224,
    patch=14,
    width=1280,
    layers=32,
    heads=16,
    mlp=5120,
    context=77,
    vocabulary=49408,
    text_width=1024,
    text_layers=24,
    text_heads=16,
    text_mlp=4096,
)
MED_CONFIG = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
CLIPS = {
    "hps_v2_1": (VIT_H_14, "pad"),
    "pick_score": (VIT_H_14, "crop"),
    "clip_score": (replace(VIT_H_14, image_size=378, quick_gelu=True), "squash"),
}
NAMES = (*CLIPS, "image_reward")


def randomise(network: nn.Module, device: torch.device) -> None:
    """Weights drawn so that features keep their size from layer to layer; the same at every call."""
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim < 2:
                is_norm = "norm" in name.lower() and name.endswith("weight")
                parameter.fill_(1.0 if is_norm else 0.0)
            else:
                fan_in = 1 if "embedding" in name else parameter[0].numel()
                parameter.normal_(std=fan_in**-0.5, generator=generator)


def clip(name: str, device: torch.device, dtype: torch.dtype, depth: int | None) -> ClipReward:
    """A CLIP reward of the real one's size."""
    sizes, fit = CLIPS[name]
    if depth is not None:
        sizes = replace(sizes, layers=depth, text_layers=depth)
    with device:
        model = transformers.CLIPModel(open_clip._config(sizes))
    randomise(model, device)
    edge = (sizes.image_size, sizes.image_size)
    return ClipReward(
        name,
        towers=TransformersTowers(model.to(dtype), open_clip.tokenizer(name, sizes)),
        preprocessing=Preprocessing(edge, fit, open_clip.MEAN, open_clip.STD),
        checkpoint=Checkpoint((), "random weights"),
        facts={"version": "random weights", "scale": "cosine", "backend": "transformers"},
    )


class RandomImageReward:
    """ImageReward's network, with token ids in place of its tokenizer, whose vocabulary is a download."""

    name = "image_reward"

    def __init__(self, device: torch.device, dtype: torch.dtype, depth: int | None):
        vision = VisionSize(image=224, patch=16, width=1024, depth=depth or 24)
        text = MED_CONFIG | ({} if depth is None else {"num_hidden_layers": depth})
        network = native_network(vision, text, device)
        randomise(network, device)
        self.network = network.to(dtype).eval()
        self.network.mlp.float()
        self.device, self.dtype = device, dtype

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """As ImageReward does."""
        ids = [
            [1 + (i + 1) * sum(map(ord, prompt)) % 30000 for i in range(MAX_TOKENS)]
            for prompt in prompts
        ]
        tokens = torch.tensor(ids, device=self.device)
        pixels = preprocess(images.to(self.device), 224).to(self.dtype)
        return self.network(pixels, tokens, torch.ones_like(tokens)).cpu()


def make(name: str, device: torch.device, dtype: torch.dtype, depth: int | None) -> Reward:
    """The reward `name`."""
    if name in CLIPS:
        return clip(name, device, dtype, depth)
    return RandomImageReward(device, dtype, depth)


def pictures(num: int) -> tuple[Tensor, list[str]]:
    """Smooth random pictures (num, 3, 720, 720) and a prompt for every group of them."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(num, 3, 12, 12, generator=generator)
    images = nn.functional.interpolate(coarse, RESOLUTION, mode="bilinear")
    return images, [f"prompt {i // GROUP} about things in a picture" for i in range(num)]


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Median seconds of a call, on a GPU after one that warms up."""
    on_gpu = device.type == "cuda"
    taken: list[float] = []
    if on_gpu:
        call()
    while sum(taken) < SECONDS or len(taken) < (3 if on_gpu else 1):
        if on_gpu:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def throughput(reward: Reward, device: torch.device, num: int) -> float:
    """Images per second in batches of `num`; prompts are embedded anew, as those of an iteration are."""
    images, prompts = pictures(num)
    images = images.to(device)

    def call() -> None:
        getattr(reward, "cache", {}).clear()
        reward.score(images, prompts)

    return num / seconds_of(call, device)


def measure(name: str, device: torch.device, depth: int | None, batches: Sequence[int]) -> None:
    """Lines of Table 1, one for each precision."""
    images, prompts = pictures(GROUP)
    exact = torch.zeros(GROUP)
    for precision, dtype in DTYPES.items():
        before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
        reward = make(name, device, dtype, depth)
        scores = reward.score(images.to(device), prompts)
        if precision == "fp32":
            exact = scores
            print(f"{name}: {parameters(reward) / 1e6:.0f} M parameters, spread {exact.std():.2e}")
        few = 1 if (device.type, precision) == ("cpu", "fp16") else max(batches)
        speeds = " ".join(
            f"{throughput(reward, device, num):9.2f}" if num <= few else f"{'-':>9s}"
            for num in batches
        )
        error = (scores - exact).abs()
        memory = ""
        if device.type == "cuda":
            memory = f"{(torch.cuda.max_memory_allocated(device) - before) / 2**30:9.2f}"
            torch.cuda.reset_peak_memory_stats(device)
        print(
            f"{name:13s} {precision} {speeds} {error.max():10.1e} {error.mean():10.1e} {memory}",
            flush=True,
        )
        del reward


def parameters(reward: Any) -> int:
    """How many weights."""
    network = reward.towers.model if hasattr(reward, "towers") else reward.network
    return sum(parameter.numel() for parameter in network.parameters())


def serve(name: str, device: str, depth: int | None, threads: int, urls: "Queue[str]") -> None:
    """A reward server, in a process of its own, until it is terminated."""
    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    reward = CheckedReward(name, make(name, torch.device(device), dtype, depth))
    with make_server({name: reward}, "127.0.0.1", 0) as server:
        urls.put(server.url)
        server.serve_forever()


def concurrency(device: torch.device, depth: int | None, threads: int) -> None:
    """Table 2."""
    places = ["cpu"] * 2
    if device.type == "cuda":
        places = [f"cuda:{i % torch.cuda.device_count()}" for i in (1, 2)]
    context = multiprocessing.get_context("spawn")
    urls: Queue[str] = context.Queue()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    local = CheckedReward("pick_score", make("pick_score", device, dtype, depth))
    rewards, processes = [local], []
    try:
        for name, place in zip(("hps_v2_1", "image_reward"), places, strict=True):
            arguments = (name, place, depth, threads, urls)
            processes.append(context.Process(target=serve, args=arguments, daemon=True))
            processes[-1].start()
            remote = RemoteReward(name, urls.get(timeout=600))
            rewards.append(CheckedReward(name, remote, elsewhere=True))
        images, prompts = pictures(GROUP)
        images = images.to(device)
        print(
            f"\nlocal: pick_score; elsewhere: hps_v2_1 on {places[0]}, image_reward on {places[1]}"
        )
        seconds = {}
        for elsewhere in (False, True):
            for reward in rewards[1:]:
                reward.elsewhere = elsewhere
            seconds[elsewhere] = seconds_of(lambda: score_all(rewards, images, prompts), device)
        scored = score_all(rewards, images, prompts)
        each = ", ".join(f"{name} {one.seconds:.2f}" for name, one in scored.items())
        print(f"seconds of {GROUP} images, each reward at the same time as the others: {each}")
        print(f"one after the other {seconds[False]:.2f} s, at the same time {seconds[True]:.2f} s")
    finally:
        for process in processes:
            process.terminate()


def machine(device: torch.device) -> str:
    """What computes."""
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    if device.type == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(device)}, {versions}"
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        model = names[0] if names else model
    threads = torch.get_num_threads()
    return f"{model}, {os.cpu_count()} cores, {threads} threads used, {versions}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--depth", type=int, help="layers of each tower; 0: all (default on a GPU)")
    parser.add_argument("--batches", default="1,12,48")
    parser.add_argument("--rewards", default=",".join(NAMES))
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    depth = options.depth if options.depth is not None else (0 if device.type == "cuda" else 1)
    batches = [int(num) for num in options.batches.split(",")]
    print(machine(device))
    print("all layers" if depth == 0 else f"NOT the full size: {depth} layers in each tower")
    print(
        "difference: of scores from fp32's, with the same random weights; GiB: at most, weights included"
    )
    speeds = " ".join(f"{f'batch {num}':>9s}" for num in batches)
    print(
        f"images/s           {speeds}    largest       mean {'      GiB' * (device.type == 'cuda')}"
    )
    for name in options.rewards.split(","):
        measure(name, device, depth or None, batches)
    concurrency(device, depth or None, max(1, torch.get_num_threads() // 3))


if __name__ == "__main__":
    main()
