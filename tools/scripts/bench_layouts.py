#!/usr/bin/env python3
"""Times convolutions in NCHW, NHWC and blocks: swath beside PyTorch, forward and both gradients.

    python3 bench_layouts.py [--threads N] [--rounds N] [--swath PATH] PROBLEM...

PROBLEM is in benchdnn's notation, as `swath bench-conv` takes it; without any, eight layers of well-known networks. The two take turns,
and the figure of each is its fastest round. PyTorch (which calls oneDNN) runs NCHW as contiguous tensors and NHWC as
`channels_last`, weights included; it has no blocks of its own outside of a compiled model. Needs torch.
"""
import argparse
import subprocess
import time

import torch

DEFAULT = """g96mb1_ic96ih112oc96oh112kh3ph1ndw_96_112 g144mb1_ic144ih56oc144oh28kh3sh2ph1ndw_144_56_s2 g576mb1_ic576ih14oc576oh14kh3ph1ndw_576_14
g32mb1_ic128ih56oc128oh56kh3ph1ng32_128_56 mb1_ic64ih56oc64oh56kh3ph1n3x3_64_56 mb1_ic256ih14oc256oh14kh3ph1n3x3_256_14 mb1_ic256ih56oc64oh56kh1n1x1_256_56
mb1_ic3ih224oc64oh112kh7sh2ph3nstem""".split()
PASSES = ["fwd", "bwd_d", "bwd_w"]


def fields(problem):
    """Values by name, with benchdnn's defaults: widths follow heights."""
    text, _, name = problem.partition("n")
    found, key, value = {}, "", ""
    for c in text.replace("_", "") + "~":
        if c.isdigit():
            value += c
            continue
        if value:
            found[key], key, value = int(value), "", ""
        key += c
    get = lambda k, d: found.get(k, d)
    f = dict(name=name or problem, g=get("g", 1), mb=get("mb", 1), ic=get("ic", 1), oc=get("oc", 1), ih=get("ih", 1), kh=get("kh", 1))
    f |= dict(sh=get("sh", 1), ph=get("ph", 0), dh=get("dh", 0))
    f |= dict(iw=get("iw", f["ih"]), kw=get("kw", f["kh"]), sw=get("sw", f["sh"]), pw=get("pw", f["ph"]), dw=get("dw", f["dh"]))
    return f


def clock(run):
    run()
    start = time.perf_counter(); run(); once = time.perf_counter() - start
    best = float("inf")
    for _ in range(max(5, min(400, int(0.3 / once)))):
        start = time.perf_counter(); run(); best = min(best, time.perf_counter() - start)
    return best * 1e3


def by_torch(problem, layout):
    """Milliseconds of the three passes."""
    f = fields(problem)
    memory = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    x = torch.randn(f["mb"], f["ic"], f["ih"], f["iw"]).to(memory_format=memory)
    w = torch.randn(f["oc"], f["ic"] // f["g"], f["kh"], f["kw"]).to(memory_format=memory)
    options = ([f["sh"], f["sw"]], [f["ph"], f["pw"]], [f["dh"] + 1, f["dw"] + 1])
    forward = lambda: torch.nn.functional.conv2d(x, w, None, *options, f["g"])
    dy = torch.randn_like(forward())
    back = lambda mask: torch.ops.aten.convolution_backward(dy, x, w, None, *options, False, [0, 0], f["g"], mask)
    with torch.no_grad():
        return [clock(forward), clock(lambda: back([True, False, False])), clock(lambda: back([False, True, False]))]


def by_swath(a, problem, layout):
    times = []
    for direction in ["fwd", "bwd"]:
        command = [a.swath, "bench-conv", "--threads", str(a.threads), "--dir", direction, "--layout", layout, "--format", "csv", problem]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        times += [float(line.split(",")[-2]) for line in lines]
    return times


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("problems", nargs="*")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--rounds", type=int, default=2)
    ap.add_argument("--swath", default="target/release/swath")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    sides = [("swath", l) for l in ["nchw", "nhwc", "blocked"]] + [("torch", l) for l in ["nchw", "nhwc"]]
    print("| layer | pass | " + " | ".join(f"{who} {layout}" for who, layout in sides) + " | torch / swath, NCHW | NHWC |")
    print("|---|---|" + "--:|" * (len(sides) + 2))
    product, count = [1.0, 1.0], 0
    for problem in a.problems or DEFAULT:
        best = {}
        for _ in range(a.rounds):
            for side in sides:
                times = by_swath(a, problem, side[1]) if side[0] == "swath" else by_torch(problem, side[1])
                best[side] = [min(pair) for pair in zip(times, best.get(side, times))]
        for i, name in enumerate(PASSES):
            ratios = [best["torch", l][i] / best["swath", l][i] for l in ["nchw", "nhwc"]]
            product, count = [p * r for p, r in zip(product, ratios)], count + 1
            row = " | ".join(f"{best[side][i]:.3f}" for side in sides)
            print(f"| {fields(problem)['name']} | {name} | {row} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)
    print("geometric mean of torch / swath: NCHW {:.2f}, NHWC {:.2f}".format(*[p ** (1 / count) for p in product]))


main()
