"""Few-step LoRAs that are known: where each lies, and how it was distilled to be sampled, as its authors state it."""

from __future__ import annotations

import math
from typing import Any

_HYPER = {"source": "ByteDance/Hyper-SD", "scale": 0.125}
_HYPER_FLUX = {**_HYPER, "guidance": 3.5}
_QWEN = {
    "source": "lightx2v/Qwen-Image-Lightning",
    "guidance": 1.0,
    "scheduler": "FlowMatchEulerDiscreteScheduler",
    "settings": {
        "base_shift": math.log(3),
        "max_shift": math.log(3),
        "shift": 1.0,
        "shift_terminal": None,
        "use_dynamic_shifting": True,
        "time_shift_type": "exponential",
    },
}
_WAN = {"steps": 4, "guidance": 1.0, "scheduler": "FlowMatchEulerDiscreteScheduler", "settings": {"shift": 5.0}}
_WAN_22 = "Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1"

PRESETS: dict[str, dict[str, Any]] = {
    "tiny-4step": {"source": "embedded:tiny-4step-lora", "steps": 4, "guidance": 1.0},
    "hyper-flux-8step": {**_HYPER_FLUX, "weight_name": "Hyper-FLUX.1-dev-8steps-lora.safetensors", "steps": 8},
    "hyper-flux-16step": {**_HYPER_FLUX, "weight_name": "Hyper-FLUX.1-dev-16steps-lora.safetensors", "steps": 16},
    "hyper-sd3-4step": {
        **_HYPER, "weight_name": "Hyper-SD3-4steps-CFG-lora.safetensors", "steps": 4, "guidance": 3.0,
    },
    "hyper-sd3-8step": {
        **_HYPER, "weight_name": "Hyper-SD3-8steps-CFG-lora.safetensors", "steps": 8, "guidance": 5.0,
    },
    "flux-turbo-alpha": {
        "source": "alimama-creative/FLUX.1-Turbo-Alpha", "weight_name": "diffusion_pytorch_model.safetensors",
        "steps": 8, "guidance": 3.5,
    },
    "qwenimage-lightning-4step": {
        **_QWEN, "weight_name": "Qwen-Image-Lightning-4steps-V1.0.safetensors", "steps": 4,
    },
    "qwenimage-lightning-8step": {
        **_QWEN, "weight_name": "Qwen-Image-Lightning-8steps-V1.1.safetensors", "steps": 8,
    },
    "wan21-lightx2v-4step": {
        **_WAN, "source": "lightx2v/Wan2.1-T2V-14B-StepDistill-CfgDistill-Lightx2v",
        "weight_name": "loras/Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank64.safetensors",
    },
    "wan22-lightning-4step": {
        **_WAN, "source": "lightx2v/Wan2.2-Lightning", "weight_name": f"{_WAN_22}/high_noise_model.safetensors",
        "also": [{
            "source": "lightx2v/Wan2.2-Lightning", "weight_name": f"{_WAN_22}/low_noise_model.safetensors",
            "into": "transformer_2",
        }],
    },
}  # fmt: skip
"""Fields of distill/lora. Names begin with the model that the LoRA is for, or with its makers' own name."""
