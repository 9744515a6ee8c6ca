"""Planned: the bytes that a recipe needs on its device, by a formula that a reader can follow.

    weights      every part's parameters x bytes of the dtype; rounded linears as their method stores them
    kept         rows x what the cache says that it keeps between steps, and the factors that it holds
    denoise      rows in one pass x tokens x bytes alive for each token (counted on meta tensors)
    decode       pixels x frames x bytes alive for each pixel (counted on meta tensors)
    beside       what CUDA and kernels' workspaces take, or on a CPU the libraries: supposed

    needs = weights on the device + kept + the larger of denoise and decode + beside

`offload: model` has one part on the device at a time, so the largest phase counts; `group` has two tensors at a time.
Parameters are exact; what is alive in a pass is scaled from one size; a LoRA beside the weights is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from ditstack.recipe.adapter import Cache, Quantizer
from ditstack.recipe.capabilities import Capability
from ditstack.recipe.declared import Trunk
from ditstack.recipe.memory.sizes import Part, Sizes, Weight, sizes_of
from ditstack.recipe.recipe import Recipe

BESIDE = {"cuda": 0.75e9, "cpu": 0.6e9}
"""Bytes that CUDA's context and kernels' workspaces take, or on a CPU the libraries: supposed, not measured."""
ITEMS = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device.

    Attributes:
        parts: of each part's weights as they run, on the device or waiting for it.
        weights: of those that are on the device together at the worst moment.
        build: the most while the stack is put up: rounded weights and one block that is not.
    """

    device: str
    offload: str
    parts: dict[str, float]
    weights: float
    kept: float
    denoise: float
    decode: float
    beside: float
    needs: float
    build: float
    told: str
    parameters: int

    def __str__(self) -> str:
        where = "the GPU" if self.device == "cuda" else "the CPU"
        named = ", ".join(f"{name} {gb(size)}" for name, size in sorted(self.parts.items(), key=lambda one: -one[1]))
        moved = {"model": ", one part at a time", "group": ", a tensor at a time"}.get(self.offload, "")
        beside = f"{'CUDA' if self.device == 'cuda' else 'libraries'} {gb(self.beside)}"
        build = f"; while it is built {gb(self.build)}" if self.build > self.weights else ""
        return (
            f"needs about {gb(self.needs)} on {where}: weights {gb(self.weights)} ({named}{moved}); kept by the cache "
            f"{gb(self.kept)}; one pass {gb(self.denoise)}; decoding {gb(self.decode)}; {beside}{build}; "
            f"sizes {self.told}"
        )


def gb(size: float) -> str:
    """Bytes for people, in 10^9."""
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e9:.2g} GB"


def planned(recipe: Recipe, device: str = "") -> MemoryPlan | None:
    """What a recipe needs; None where the sizes of its model are not known.

    Args:
        device: "cuda" or "cpu"; empty asks the recipe and this machine.
    """
    sizes = sizes_of(recipe.model)
    if sizes is None:
        return None
    model = recipe.model
    device = device or model.place().type
    item = ITEMS.get(model.dtype, 2 if device == "cuda" else 4)
    return _Planner(recipe, sizes, device, model.offload if device == "cuda" else "none", item).plan()


def with_offload(recipe: Recipe, device: str, room: float) -> tuple[str, MemoryPlan] | None:
    """The gentlest offload with which it fits into so many bytes, and its plan; None where none helps."""
    for way in ("model", "group"):
        if way == "group" and any(Capability.MOVED_WHOLE in adapter.needs for _, adapter in recipe.stages()):
            continue
        found = planned(recipe.with_(model={"offload": way}), device)
        if found is not None and found.needs <= room:
            return way, found
    return None


@dataclass(frozen=True)
class _Planner:
    recipe: Recipe
    sizes: Sizes
    device: str
    offload: str
    item: int

    def plan(self) -> MemoryPlan:
        parts = {part.name: self.of_part(part) for part in self.sizes.parts}
        kept, denoise, decode = self.kept(), self.denoise(), self.decode()
        held, runs = self.phases(parts, kept + denoise, kept + decode)
        build = 0.0 if self.offload != "none" else self.build(parts)  # else it is rounded where the weights wait
        beside = BESIDE[self.device]
        needs = max(runs, build) + beside
        told = (self.device, self.offload, parts, held, kept, denoise, decode, beside, needs, build, self.sizes.told)
        return MemoryPlan(*told, sum(part.parameters for part in self.sizes.parts))

    def phases(self, parts: dict[str, float], denoise: float, decode: float) -> tuple[float, float]:
        """The weights that are on the device at the worst moment of a generation, and all that is there then."""
        if self.offload == "none":
            held = sum(parts.values())
            return held, held + max(denoise, decode)
        if self.offload == "group":
            held = 2 * max(self.of_weight(one) for part in self.sizes.transformers for one in part.weights)
            return held, held + max(denoise, decode)
        transformer = max(parts[part.name] for part in self.sizes.transformers)
        coder = sum(size for name, size in parts.items() if name.startswith("vae"))
        moments = [(one, one) for one in parts.values()]
        moments += [(transformer, transformer + denoise), (coder, coder + decode)]
        return max(moments, key=lambda one: one[1])

    def of_part(self, part: Part) -> float:
        if not part.weights:
            return part.parameters * self.item
        return sum(one.count * self.of_weight(one) for one in part.weights)

    def of_weight(self, one: Weight) -> float:
        """Bytes of one such weight as it runs."""
        inside = self.inside(one)
        quantizer = self.recipe.adapters.get("quantize")
        if not (inside and one.is_linear and isinstance(quantizer, Quantizer)):
            return one.each * self.item
        if not quantizer.rounds(inside.removesuffix(".weight"), one.shape[1]):
            return one.each * self.item
        return quantizer.stored(one.shape[0], one.shape[1], self.item)

    def inside(self, one: Weight) -> str:
        """Its name inside a block of the trunk; empty for what lies outside."""
        stacks = self.recipe.model.stacks
        head, star, rest = one.name.partition(".*.")
        return rest if star and (head in stacks or not stacks) else ""

    def block(self) -> float:
        """Of the largest block, as it is before rounding."""
        found: dict[str, list[Weight]] = {}
        for part in self.sizes.transformers:
            for one in part.weights:
                if self.inside(one):
                    found.setdefault(f"{part.name} {one.name.partition('.*.')[0]}", []).append(one)
        return max((self.one_block(same) for same in found.values()), default=0.0)

    def one_block(self, same: list[Weight]) -> float:
        blocks = max(one.count for one in same)
        return sum(one.each * self.item * -(-one.count // blocks) for one in same)

    def build(self, parts: dict[str, float]) -> float:
        """The most that is held while the stack is put up.

        On its way to a GPU each block is rounded by itself. A CPU holds the whole model before that.
        """
        if self.device != "cuda":
            plain = sum(part.parameters * self.item for part in self.sizes.parts)
            return plain + (self.block() if "quantize" in self.recipe.adapters else 0.0)
        return sum(parts.values()) + (self.block() if "quantize" in self.recipe.adapters else 0.0)

    @property
    def branches(self) -> int:
        """Of guidance: two unless it is told to the model as a number, or is off."""
        guided = (self.recipe.sampler.guidance or 0) > 1 or self.recipe.sampler.guidance is None
        return 2 if guided and self.sizes.guidance != "embedded" else 1

    @property
    def tokens(self) -> int:
        sampler = self.recipe.sampler
        return self.sizes.tokens(sampler.width_height or self.sizes.size, sampler.frames or 0)

    def trunk(self) -> Trunk:
        reads = {"picture": self.tokens, "text": self.sizes.text, "both": self.tokens + self.sizes.text}
        linears, blocks = [], 0
        for part in self.sizes.transformers:
            stacks = {}
            for one in part.weights:
                if not self.inside(one):
                    continue
                head = one.name.partition(".*.")[0]
                stacks[head] = max(stacks.get(head, 0), one.count)
                if one.is_linear and one.reads in reads:
                    linears.append((one.count, one.shape[0], one.shape[1], reads[one.reads]))
            blocks += sum(stacks.values())
        count = len(self.sizes.transformers)
        return Trunk(self.tokens, self.sizes.text, self.sizes.width, count, blocks, tuple(linears))

    def kept(self) -> float:
        cache = self.recipe.adapters.get("cache")
        if not isinstance(cache, Cache):
            return 0.0
        trunk = self.trunk()
        return (self.branches * cache.kept(trunk) + cache.weighs(trunk)) * self.item

    def denoise(self) -> float:
        rows = self.branches if self.sizes.guidance == "batched" else 1
        return rows * (self.tokens + self.sizes.text) * self.sizes.bytes_per_token * self.item / 2

    def decode(self) -> float:
        sampler = self.recipe.sampler
        width, height = sampler.width_height or self.sizes.size
        return width * height * (sampler.frames or 1) * self.sizes.bytes_per_pixel * self.item / 2
