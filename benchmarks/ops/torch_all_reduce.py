#!/usr/bin/env python3
"""NCCL's all-reduce of float32 through PyTorch: microseconds of one call in a CUDA graph of many.

    benchmarks/ops/torch_all_reduce.py [--ranks 2] [--rounds 5]

The yardstick of bench_cuda_exchange: the same sizes, one process a GPU, medians.
"""

import argparse
import os
import socket
import statistics
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SIZES_KIB = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)


def run(rank, ranks, rounds, port):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", rank=rank, world_size=ranks, device_id=torch.device("cuda", rank))
    if rank == 0:
        print(f"NCCL {'.'.join(map(str, torch.cuda.nccl.version()))}, {ranks} ranks, microseconds of one all-reduce")
    for kib in SIZES_KIB:
        data = torch.zeros(kib * 256, device="cuda")
        messages = 200 if kib <= 1024 else 20
        for _ in range(3):
            dist.all_reduce(data)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(messages):
                dist.all_reduce(data)
        times = []
        for round_ in range(-2, rounds):
            dist.barrier()
            torch.cuda.synchronize()
            begun = time.perf_counter()
            for _ in range(4):
                graph.replay()
            torch.cuda.synchronize()
            if round_ >= 0:
                times.append((time.perf_counter() - begun) * 1e6 / (4 * messages))
        if rank == 0:
            print(f"| {ranks} | {kib} | {statistics.median(times):.2f} |", flush=True)
        del graph
    dist.destroy_process_group()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--ranks", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(run, args=(given.ranks, given.rounds, port), nprocs=given.ranks)


if __name__ == "__main__":
    main()
