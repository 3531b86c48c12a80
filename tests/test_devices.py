"""Is a device asked what it can do, and believed?"""

import pytest
import torch

from prunecap_lib.devices import native_bf16


@pytest.mark.parametrize("has, native", [
    ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),  # cpuinfo names what is missing, too
    ({"avx512_f": True, "avx512_vnni": True}, False),                  # AVX-512 alone emulates it
    ({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"neon": True, "bf16": True}, True),
])
def test_a_cpu_has_bf16_where_it_has_instructions_for_it(has, native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert native_bf16(torch.device("cpu")) is native


def test_who_cannot_be_asked_has_none(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert native_bf16(torch.device("cpu")) is False
    assert native_bf16(torch.device("mps")) is False


def test_a_gpu_that_emulates_it_has_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert native_bf16(torch.device("cuda")) is False
