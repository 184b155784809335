"""Facts about the machine, without its name, and the memory of a process."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

PACKAGES = ("torch", "onnxruntime", "openvino", "modelscope", "rapidocr", "numpy", "ms_ocr_handwritten")
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # the last is Arm's name
IDLE_LOAD = 0.5  # running or waiting processes, averaged over the last minute


def machine(threads: int, device: str) -> dict[str, str]:
    """Facts printed with all figures."""
    import torch

    facts = {
        "CPU": _cpuinfo("model name") or platform.processor() or platform.machine(),
        "cores, threads used": f"{os.cpu_count()}, {threads}",
        "multiplies bf16": ", ".join(flag for flag in BF16_FLAGS if flag in _cpu_flags()) or "no",
        "Python": platform.python_version(),
    }
    if device == "gpu":
        facts["GPU"] = torch.cuda.get_device_name()
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "not installed"
    load = os.getloadavg()[0]
    facts["load before the run"] = f"{load:.2f}" + (" (not idle: do not quote these times)" if load > IDLE_LOAD else "")
    return facts


def has_bf16(device: str) -> bool:
    """Whether the device has bf16 multiplication instructions."""
    if device == "gpu":
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(_cpu_flags() & set(BF16_FLAGS))


def resident_mib() -> float:
    """Current memory of this process, in MiB."""
    return _status("VmRSS")


def peak_resident_mib() -> float:
    """Peak memory of this process so far, in MiB."""
    return _status("VmHWM")


def _status(name: str) -> float:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        raise SystemExit(
            "memory is read from /proc/self/status, which this system has not; leave out "
            "the sections memory and training"
        ) from None
    return int(re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)[1]) / 1024


def _cpu_flags() -> set[str]:
    return set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())


def _cpuinfo(name: str) -> str | None:
    """The first value of that name in Linux's description of the processors."""
    path = Path("/proc/cpuinfo")
    found = re.search(rf"^{name}\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found and found[1]
