"""The networks that images are measured with, forward in eager PyTorch, with random weights.

Inception-v3 and VGG16 are torchvision's: of the sizes of the published networks, if not of their pools. DINOv2 is written out
with PyTorch's fused attention. Maps lie in memory as PyTorch has them by default and channels last: the faster one counts.
"""

WORKLOADS = ("inception_b8", "dinov2_vits14_b8", "lpips_b8")


def inception():
    import torch
    from torchvision.models import inception_v3
    net = inception_v3(weights=None, aux_logits=False, init_weights=False)
    net.fc = torch.nn.Identity()
    return net.eval()


def dinov2(width=384, blocks=12, patch=14, cells=16):
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
            self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            batch, length, _ = x.shape
            parts = self.qkv(self.norm1(x)).reshape(batch, length, 3, width // 64, 64).permute(2, 0, 3, 1, 4)
            seen = functional.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(batch, length, width)
            x = x + self.proj(seen)
            return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    class Dinov2(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, width, patch, patch)
            self.first = nn.Parameter(torch.randn(1, 1, width))
            self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + cells * cells, width))
            self.blocks = nn.Sequential(*[Block() for _ in range(blocks)])
            self.norm = nn.LayerNorm(width, eps=1e-6)

        def forward(self, images):
            x = self.patches(images).flatten(2).transpose(1, 2)
            x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.positions
            return self.norm(self.blocks(x))[:, 0]

    return Dinov2().eval()


def lpips():
    import torch
    from torch import nn
    from torchvision.models import vgg16

    class Lpips(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = vgg16(weights=None).features[:30]
            self.heads = nn.ModuleList([nn.Conv2d(c, 1, 1, bias=False) for c in (64, 128, 256, 512, 512)])

        def features(self, x):
            taps = []
            for place, layer in enumerate(self.layers):
                x = layer(x)
                if place in (3, 8, 15, 22, 29):
                    taps.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
            return taps

        def forward(self, x, y):
            parts = zip(self.heads, self.features(x), self.features(y))
            return sum(head((a - b).square()).mean((1, 2, 3)) for head, a, b in parts)

    return Lpips().eval()


def variants(name, threads):
    """Each way of keeping maps in memory, with a call that runs the network and its number of images."""
    import torch
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    build, batches, side = {"inception_b8": (inception, 1, 299), "dinov2_vits14_b8": (dinov2, 1, 224),
                            "lpips_b8": (lpips, 2, 128)}[name]
    for variant, layout in (("usual", torch.contiguous_format), ("channels_last", torch.channels_last)):
        net = build().to(memory_format=layout)
        images = [torch.rand(8, 3, side, side).mul(2).sub(1).to(memory_format=layout) for _ in range(batches)]

        def call():
            with torch.inference_mode():
                net(*images)
        yield variant, (call, 8)
