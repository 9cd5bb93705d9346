"""Writes cases of training steps in PyTorch, to be compared with ours.

    python export.py PEERS OUT [--small]

PEERS is the folder of the peers' models.py. Each case is a folder of OUT: `case.json` says the model's sizes and what
is expected, `data.safetensors` holds weights under our names (`w.`), a batch (`in.`), and what came of it (`out.`): the
losses of three steps from these weights, and of the first step the norm of each parameter's gradient. Tiny models by
default, which tests/peers keeps; with --small those of the small workloads.
"""
import argparse
import json
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

CLASSES, LATENT, STEPS = 10, 64, 3


def resnet_names(net, blocks, levels):
    """Our name of each parameter of the autoencoder: its module here, and the path there."""
    names = {}

    def block(module, path):
        names.update({module.norm1: f"{path}.norm1", module.conv1: f"{path}.conv1",
                      module.norm2: f"{path}.norm2", module.conv2: f"{path}.conv2"})
        if not isinstance(module.skip, torch.nn.Identity):
            names[module.skip] = f"{path}.nin_shortcut"

    encoder, decoder = iter(net.encoder), iter(net.decoder)
    names[next(encoder)] = "encoder.conv_in"
    for level in range(levels):
        for j in range(blocks):
            block(next(encoder), f"encoder.down.{level}.block.{j}")
        if level + 1 < levels:
            names[next(encoder)] = f"encoder.down.{level}.downsample.conv"
    block(next(encoder), "encoder.mid.block_1")
    block(next(encoder), "encoder.mid.block_2")
    names[next(encoder)] = "encoder.norm_out"
    next(encoder)
    names[next(encoder)] = "encoder.conv_out"
    names[net.quant_conv], names[net.post_quant_conv] = "quant_conv", "post_quant_conv"
    names[next(decoder)] = "decoder.conv_in"
    block(next(decoder), "decoder.mid.block_1")
    block(next(decoder), "decoder.mid.block_2")
    for level in reversed(range(levels)):
        for j in range(blocks + 1):
            block(next(decoder), f"decoder.up.{level}.block.{j}")
        if level > 0:
            names[next(decoder).conv] = f"decoder.up.{level}.upsample.conv"
    names[next(decoder)] = "decoder.norm_out"
    next(decoder)
    names[next(decoder)] = "decoder.conv_out"
    return {id(p): f"autoencoder.{path}.{leaf}" for module, path in names.items()
            for leaf, p in module.named_parameters(recurse=False)}


def stack_names(stack, path):
    inner = {"ln1": "ln1", "qkv": "attn.qkv", "proj": "attn.proj", "ln2": "ln2", "fc1": "mlp.0", "fc2": "mlp.2"}
    return {id(p): f"{path}.blocks.{i}.{ours}.{leaf}" for i, block in enumerate(stack)
            for theirs, ours in inner.items() for leaf, p in getattr(block, theirs).named_parameters()}


def classifier_names(classifier):
    return {id(p): f"classifier.{ours}.{leaf}" for ours, module in zip(("layer_norm", "linear"), classifier)
            for leaf, p in module.named_parameters()}


def rq_names(net):
    names = {id(net.start.weight): "cond_emb.weight", id(net.body_pos): "pos_emb_hw", id(net.head_pos): "pos_emb_d"}
    names |= {id(p): f"input_mlp.{leaf}" for leaf, p in net.body_in.named_parameters()}
    names |= {id(p): f"head_mlp.{leaf}" for leaf, p in net.head_in.named_parameters()}
    names |= stack_names(net.body, "body_transformer") | stack_names(net.head, "head_transformer")
    return names | classifier_names(net.classifier)


def ar_names(net):
    names = {id(net.start.weight): "cond_emb.weight", id(net.tok.weight): "tok_emb.weight", id(net.pos): "pos_emb"}
    return names | stack_names(net.body, "transformer") | classifier_names(net.classifier)


def train(net, names, optimizer, loss_of, data):
    """Three steps; what is needed to repeat them goes into `data`. The parameters' names must all be known."""
    ours = {names[id(p)]: p for p in net.parameters()}
    assert len(ours) == sum(1 for _ in net.parameters())
    for name, p in ours.items():
        # Tables of positions have an axis for the batch.
        value = p.detach().clone()
        data[f"w.{name}"] = value[None] if name.startswith("pos_emb") else value
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        if step == 0:
            norms = [ours[name].grad.norm() for name in sorted(ours)]
            data["out.gradient_norms"] = torch.stack(norms)
        optimizer.step()
        losses.append(loss.detach())
    data["out.losses"] = torch.stack(losses)


def tokenizer(models, batch, config):
    net = models.RQVAE(**config).train()
    images = torch.rand(batch, 3, 32, 32) * 2 - 1
    rq = net.quantizer
    # The codewords lie where the latents do, so that the nearest is not decided by rounding.
    with torch.no_grad():
        z = net.quant_conv(net.encoder(images)).permute(0, 2, 3, 1).reshape(-1, config["latent"])
        rq.codebook[0] = z.std() * torch.randn_like(rq.codebook[0])
        rq.total.copy_(rq.codebook)
    data = {"in.images": images}
    for ours, value in (("weight", rq.codebook), ("cluster_size_ema", rq.count), ("embed_ema", rq.total)):
        data[f"w.quantizer.codebooks.0.{ours}"] = value[0].clone()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.9, 0.99))

    def loss():
        recon, codes, commitment = net(images)
        data.setdefault("out.codes", codes)
        return F.mse_loss(recon, images) + 0.25 * commitment
    names = resnet_names(net, config["blocks"], len(config["mults"]))
    train(net, names, optimizer, loss, data)
    data["out.codebook"] = rq.codebook[0].clone()
    return data


def prior(net, names, shape, size):
    codes = torch.randint(0, size, shape)
    label = torch.randint(0, CLASSES, shape[:1])
    data = {"in.codes": codes, "in.labels": label}
    if hasattr(net, "codebook"):
        data["in.codebook"] = net.codebook.clone()
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-4, betas=(0.9, 0.95), weight_decay=1e-4)
    train(net, names, optimizer, lambda: F.cross_entropy(net(codes, label).flatten(0, -2), codes.flatten()), data)
    return data


def write(folder, name, config, tolerances, data):
    folder.mkdir(parents=True, exist_ok=True)
    expect = [{"name": f"out.{key}", **how} for key, how in tolerances.items()]
    case = {"name": name, "config": config, "expect": expect}
    (folder / "case.json").write_text(json.dumps(case, indent=1) + "\n")
    save_file({k: v.contiguous() for k, v in data.items()}, folder / "data.safetensors")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("peers", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--small", action="store_true", help="the models of the small workloads")
    args = p.parse_args()
    sys.path.insert(0, str(args.peers))
    import models

    torch.manual_seed(0)
    steps = {"losses": {"abs": 1e-5, "rel": 1e-4}, "gradient_norms": {"abs": 1e-6, "rel": 2e-3}}
    if args.small:
        net = dict(base=32, mults=[1, 2, 2, 2], blocks=1, latent=LATENT, codes=256, depth=4)
        rq = dict(positions=16, depth=4, width=128, heads=4, body=4, head=2)
        ar, codes, batch = dict(codes=256, length=64, width=128, heads=4, layers=4), 256, 8
    else:
        net = dict(base=8, mults=[1, 2], blocks=1, latent=8, codes=16, depth=3)
        rq = dict(positions=4, depth=3, width=16, heads=2, body=2, head=1)
        ar, codes, batch = dict(codes=16, length=4, width=16, heads=2, layers=2), 16, 2
    images = dict(net, batch=batch)
    write(args.out / "tokenizer_step", "tokenizer_step", images,
          dict(steps, codes={"exact": True}, codebook={"abs": 1e-4, "rel": 1e-3}), tokenizer(models, batch, net))
    model = models.RQTransformer(torch.randn(codes, net["latent"]), classes=CLASSES, **rq)
    write(args.out / "rq_transformer_step", "rq_transformer_step", dict(rq, codes=codes),
          steps, prior(model, rq_names(model), (batch, rq["positions"], rq["depth"]), codes))
    model = models.ARTransformer(classes=CLASSES, **ar)
    write(args.out / "ar_step", "ar_step", ar, steps, prior(model, ar_names(model), (batch, ar["length"]), codes))


if __name__ == "__main__":
    main()
