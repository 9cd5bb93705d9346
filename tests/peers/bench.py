"""What PyTorch's DataLoader with Pillow takes for the batches that `rqlab bench --only data_` times, and PyTorch for the networks
that images are measured with (networks.py).

    rqlab bench --peers tests/peers --python VENV/bin/python --only data_jpeg --only inception

rqlab writes the image files, times its own plugin over them, and then has this program do the same (`--one NAME --images
DIR`), in a process of its own. VENV needs torch, torchvision, numpy and pillow.

A call is the next batch of 64 training images: file opened, decoded, made RGB, the shorter side scaled with Pillow's
bicubic filter, a random square cut out, mirrored at random, as a float32 tensor [3, H, W] normalized to [-1, 1]. These are
torchvision's Resize, RandomCrop, RandomHorizontalFlip, ToTensor and Normalize(0.5, 0.5), written out without its checks of
types. In PyTorch's favour: as many workers as rqlab has threads, kept over epochs, an endless order of images so that no
epoch's end is waited for, bytes turned to numbers in one step, and two batches per worker prepared ahead.
"""
import argparse
import json
import os
import pathlib
import platform
import random
import statistics
import time

import networks

BATCH = 64
WORKLOADS = {"data_jpeg_64": 64, "data_jpeg_256": 256, "data_png_64": 64}    # name -> side of the square


class Files:
    """Images by index, each with its class."""

    def __init__(self, folder, side):
        classes = sorted(p for p in folder.iterdir() if p.is_dir())
        self.items = [(str(file), k) for k, c in enumerate(classes) for file in sorted(c.iterdir())]
        self.side = side

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        import numpy
        import torch
        from PIL import Image
        path, label = self.items[index]
        side = self.side
        with Image.open(path) as image:
            image = image.convert("RGB")
        width, height = image.size
        scale = side / min(width, height)
        if scale != 1:
            image = image.resize((max(side, int(width * scale)), max(side, int(height * scale))), Image.Resampling.BICUBIC)
        left, top = random.randint(0, image.width - side), random.randint(0, image.height - side)
        image = image.crop((left, top, left + side, top + side))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float().div_(127.5).sub_(1), label


def endless(count):
    """Every image once per epoch, in an order of its own, without an end."""
    generator = random.Random(0)
    while True:
        order = list(range(count))
        generator.shuffle(order)
        yield from order


class Order:
    """A sampler for `endless`."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return endless(self.count)


def batches(name, folder, workers):
    import torch
    from torch.utils.data import DataLoader
    torch.set_num_threads(1)
    files = Files(pathlib.Path(folder) / "train", WORKLOADS[name])
    loader = DataLoader(files, batch_size=BATCH, sampler=Order(len(files)), num_workers=workers,
                        persistent_workers=True, prefetch_factor=2)
    return iter(loader)


def cpu_seconds():
    """Of this process and its workers, which run for as long as it does."""
    ticks = os.sysconf("SC_CLK_TCK")
    spent, me = 0, str(os.getpid())
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if process.name == me or fields[1] == me:
            spent += int(fields[11]) + int(fields[12])
    return spent / ticks


def busy_seconds():
    fields = [int(s) for s in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def peak_rss_mib():
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def measure(batch, seconds, images=BATCH, ahead=8, inner=4):
    """The rule of the other workloads: a first call, warm-up for a second, then samples of 20 ms or more."""
    def call(n):
        start = time.perf_counter()
        for _ in range(n):
            batch()
        return time.perf_counter() - start

    first = call(1)
    warm, once = first, first
    # The batches that were prepared ahead while others were waited for count as warm-up.
    for _ in range(ahead):
        once = call(1)
        warm += once
    while warm < 1:
        once = call(1)
        warm += once
    samples, total = [], 0.0
    cpu, busy = cpu_seconds(), busy_seconds()
    while len(samples) < 5 or (total < seconds and len(samples) < 200):
        # Workers finish about at the same time: what one call waits for, the next one does not.
        t = call(inner)
        samples.append(t / inner)
        total += t
    cpu = cpu_seconds() - cpu
    others = max(0.0, busy_seconds() - busy - cpu)
    median = statistics.median(samples)
    return {"median_ms": 1e3 * median, "min_ms": 1e3 * min(samples), "first_ms": 1e3 * first,
            "cpu_ms": 1e3 * cpu / (inner * len(samples)), "throughput": images / median, "unit": "images/s",
            "ms_per_unit": 1e3 * median / images, "peak_rss_mib": peak_rss_mib(), "samples": len(samples), "inner": inner,
            "params": None, "other_cpu_fraction": others / (total * (os.cpu_count() or 1))}


def run_one(name, args):
    if name in networks.WORKLOADS:
        for variant, (call, images) in networks.variants(name, args.threads):
            row = measure(call, args.seconds, images=images, ahead=1, inner=1)
            print("ROW " + json.dumps({"name": f"{name}/{variant}", **row}))
        return
    if args.images is None:
        raise SystemExit("rqlab writes the images: start this with `rqlab bench --peers`")
    iterator = batches(name, args.images, args.threads)
    print("ROW " + json.dumps({"name": name, **measure(lambda: next(iterator), args.seconds)}))


def describe(args):
    from importlib.metadata import version
    return {"versions": {package: version(package) for package in ("torch", "torchvision", "numpy", "pillow")},
            "python": platform.python_version(), "cores": os.cpu_count(), "threads": args.threads,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "rows": []}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="names the workloads")
    parser.add_argument("--one", choices=[*WORKLOADS, *networks.WORKLOADS], help="times a workload, and prints its row")
    parser.add_argument("--images", metavar="DIR", help="the files, in folders `train/CLASS`")
    parser.add_argument("--threads", type=int, default=2, help="worker processes")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", metavar="FILE", help="says what this is, in a run without rows")
    # What rqlab tells every peer: these compute on the CPU, whatever the device.
    for option in ("--device", "--dtype", "--only"):
        parser.add_argument(option, help=argparse.SUPPRESS)
    for option in ("--tf32", "--channels-last"):
        parser.add_argument(option, action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        print("\n".join([*WORKLOADS, *networks.WORKLOADS]))
    if args.one:
        run_one(args.one, args)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({"runs": [describe(args)]}))


if __name__ == "__main__":
    main()
