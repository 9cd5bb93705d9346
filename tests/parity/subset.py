#!/usr/bin/env python3
"""Writes the cases of this folder anew from a folder of all cases: `subset.py FULL_SET` (README.md says what they are).

A case is copied as it is, with two exceptions: of the cases in PARTS only one sub-case is kept, and those in LEFT_OUT are not
there, because the smallest model that the published code can build is too large for a repository.
"""

import json
import re
import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE.parent / "src/parity/mod.rs"
PARTS = {
    "dinov2_features": "reg.",
    "pixelsnail_forward": "bottom.",
    "resnet_block": "same.",
    "rq_transformer_forward": "text.",
}
LEFT_OUT = {"encoder_decoder", "kl_vae_forward", "mar_forward", "mar_sample_tokens", "vqvae2_forward"}


def read_tensors(path):
    """The entries of a safetensors file with their bytes, in the file's order."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    start = 8 + length
    entries = []
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        entries.append((name, entry["dtype"], entry["shape"], data[start + first : start + last]))
    return entries


def write_tensors(path, entries):
    header, offset = {}, 0
    for name, dtype, shape, numbers in entries:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(numbers)]}
        offset += len(numbers)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(numbers for *_, numbers in entries))


def keep(name, part):
    """Whether a tensor or result belongs to the sub-case, if there is one: names are `group.sub-case.rest`."""
    return name.split(".", 1)[1].startswith(part)


def main(full):
    known = re.findall(r'^    \("(\w+)",', TABLE.read_text(), re.MULTILINE)
    for name in known:
        source, target = full / name, HERE / name
        if name in LEFT_OUT or not source.is_dir():
            continue
        target.mkdir(exist_ok=True)
        part = PARTS.get(name, "")
        case = json.loads((source / "case.json").read_text())
        case.pop("variant", None)
        # Which set a case is of says nothing about its numbers.
        case["what"] = re.sub(r" \((open|held)\)", "", case["what"])
        case["inputs"] = [entry for entry in case["inputs"] if keep(entry, part)]
        case["expect"] = [entry for entry in case["expect"] if keep(entry["name"], part)]
        if "tensors" in case:
            case["tensors"] = {entry: about for entry, about in case["tensors"].items() if keep(entry, part)}
        if part:
            case["notes"] += f" Of the sub-cases, {part} alone is kept here."
        (target / "case.json").write_text(json.dumps(case, indent=1) + "\n")
        if (source / "data.safetensors").is_file():
            entries = read_tensors(source / "data.safetensors")
            write_tensors(target / "data.safetensors", [entry for entry in entries if keep(entry[0], part)])
    size = sum(file.stat().st_size for file in HERE.rglob("*") if file.is_file())
    print(f"{size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
