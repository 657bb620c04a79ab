#!/usr/bin/env python3
"""Files as torch.save writes them, small. python3 make_testdata.py, in this folder; made with torch 2.x.

The values are those that tests.rs expects: `a` counts from 0.5, the others look at it or are constants.
"""
import os
from collections import OrderedDict

import torch

a = torch.arange(6, dtype=torch.float32).reshape(2, 3) + 0.5
base = torch.arange(20, dtype=torch.float32).reshape(4, 5)
weights = OrderedDict(
    a=a,
    tied=a,
    transposed=a.t(),
    window=base[1:3, 1::2],
    half=torch.tensor([1.5, -2.0, 65504.0]).half(),
    brain=torch.tensor([1.5, -2.0, 3.0]).bfloat16(),
    ids=torch.arange(3).unsqueeze(0),
    scalar=torch.tensor(2.5),
    empty=torch.zeros(0, 4),
    expanded=torch.tensor([7.0]).expand(3, 2),
    parameter=torch.nn.Parameter(torch.tensor([4.0, 5.0])),
)
saved = {"epoch": 3, "loss": 0.5, "size": torch.Size([2, 3]), "device": torch.device("cpu"),
         "dtype": torch.float32, "words": ["a", b"b", None, 2**70, {1, 2}], "model": weights}
torch.save(saved, "zip.pth")
torch.save(saved, "protocol4.pth", pickle_protocol=4)
torch.save(saved, "stream.pth", _use_new_zipfile_serialization=False)

torch.manual_seed(0)
module = torch.nn.Linear(2, 1)
with torch.no_grad():
    module.weight.copy_(torch.tensor([[1.0, 2.0]]))
    module.bias.fill_(3.0)
torch.save(module.state_dict(), "module.bin")  # with the attribute _metadata


class Command:
    def __reduce__(self):
        return os.system, ("touch executed",)


torch.save({"a": a, "b": Command()}, "command.bin")
torch.save({"a": a, "b": Command()}, "command_stream.bin", _use_new_zipfile_serialization=False)
torch.save(module, "whole_module.bin")  # the object, not its weights
