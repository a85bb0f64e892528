"""The precision in which a network computes, by name; `auto` is bfloat16 where the device has arithmetic for it."""

from __future__ import annotations

import torch

from mri_score.errors import unknown_name

AUTO = "auto"
"""The precision that the device decides: bfloat16 if it computes in it, else float32."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Precisions of a network by name; AUTO stands for one of them."""
CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Instructions of a CPU that compute in bfloat16, as torch names them: two of x86, one of ARM.

The question whether oneDNN accepts bfloat16 would not do: it accepts it on every CPU with AVX-512, and emulates it.
"""


def check_precision(name: str, place: str = "the precision") -> None:
    """Errors: InputError for an unknown name. place: where the name stands, for the message."""
    if name not in (AUTO, *PRECISIONS):
        raise unknown_name(place, name, (AUTO, *PRECISIONS))


def find_precision(name: str, place: str = "the precision", device: torch.device | str = "cpu") -> torch.dtype:
    """The torch type of this name. place: where the name stands, for messages. device: decides what `auto` is.

    Errors: InputError for an unknown name.
    """
    return PRECISIONS[resolved_precision(name, place, device)]


def resolved_precision(name: str, place: str = "the precision", device: torch.device | str = "cpu") -> str:
    """The name itself, or the one that `auto` stands for on the device.

    name, place, device: as in `find_precision`. Errors: InputError for an unknown name.
    """
    check_precision(name, place)
    if name != AUTO:
        return name
    return "bfloat16" if has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether the device has instructions for bfloat16: CPUs by their flags, NVIDIA's GPUs from capability 8 on.

    Without them convolutions in bfloat16 take several times as long as in float32. Other devices count as without.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        flags = cpu_flags()
        return any(flags.get(flag) for flag in CPU_FLAGS)
    return kind == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def cpu_flags() -> dict[str, object]:
    """The instruction sets of this CPU by name, and whether each is present; of an older torch, two of them only."""
    listed = getattr(torch.cpu, "get_capabilities", None)
    if listed is not None:
        return dict(listed())
    return {"avx512_bf16": torch.cpu._is_avx512_bf16_supported(), "amx_bf16": torch.cpu._is_amx_tile_supported()}


def precision_note(name: str, device: torch.device | str) -> str | None:
    """A sentence for the user: what `auto` stands for on the device, or that bfloat16 is slow on it; else None.

    name: of the precision that was asked for. device: where the network computes.
    """
    place = torch.device(device)
    found = has_bfloat16(place)
    if name == AUTO:
        what = "computes in bfloat16" if found else "has no instructions for bfloat16"
        return f"precision {resolved_precision(AUTO, device=place)}: this {place.type} {what}"
    if name == "bfloat16" and not found:
        return f"this {place.type} has no instructions for bfloat16: float32 is faster; --precision auto chooses it"
    return None
