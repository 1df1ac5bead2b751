"""Makes a reranker of the model in the box: the same weights, with a head of one number, which nobody has trained.

In: the model's folder. Out: another one, that vLLM serves by `--runner pooling`. Its scores mean nothing; that each is
of its own pair of texts is real.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

_HEAD = "score.weight"


def make_reranker(source: Path, folder: Path) -> Path:
    """Write the model into a folder, which is made."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["LlamaForSequenceClassification"], "num_labels": 1, "id2label": {"0": "score"}}
    (folder / "config.json").write_text(json.dumps(config))
    file = folder / "model.safetensors"
    head = np.random.default_rng(0).standard_normal((1, config["hidden_size"])).astype("<f4").tobytes()
    size = int.from_bytes(file.read_bytes()[:8], "little")
    tensors = file.read_bytes()[8 + size :]
    listed = json.loads(file.read_bytes()[8 : 8 + size])
    listed[_HEAD] = {
        "dtype": "F32",
        "shape": [1, config["hidden_size"]],
        "data_offsets": [len(tensors), len(tensors) + len(head)],
    }
    header = json.dumps(listed).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + tensors + head)
    return folder
