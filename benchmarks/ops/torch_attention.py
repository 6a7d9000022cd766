"""What PyTorch's scaled_dot_product_attention takes for the shapes of bench_cuda_attention.

One line a shape and kernel library: microseconds and TFLOP/s, the median of some runs.
"""

import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def measure(call):
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(5):
            call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 5e3)
    return statistics.median(times)


def show(name, backend, q, k, v, flops, causal=False, gqa=False):
    try:
        with sdpa_kernel(backend):
            seconds = measure(lambda: torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=causal, enable_gqa=gqa))
        print(f"{name:34} {backend.name:20} {seconds * 1e6:10.2f} us {flops / seconds / 1e12:7.1f} TFLOP/s", flush=True)
    except RuntimeError as error:
        print(f"{name:34} {backend.name:20} {str(error).splitlines()[0][:80]}", flush=True)


def random(*shape):
    return torch.randn(*shape, dtype=torch.bfloat16, device="cuda")


def main():
    backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
    for batch, rows in [(1, 1024), (1, 2048), (1, 8192), (16, 512)]:
        q, k, v = random(batch, 32, rows, 128), random(batch, 4, rows, 128), random(batch, 4, rows, 128)
        for backend in backends:
            show(f"prompt {batch} x {rows}", backend, q, k, v, 4 * batch * rows * (rows + 1) / 2 * 32 * 128, True, True)
    for size in (72, 64):
        for rows in (3072, 8160, 32640):
            q, k, v = (random(1, 16, rows, size) for _ in range(3))
            for backend in backends:
                show(f"tower {rows} rows, heads of {size}", backend, q, k, v, 4 * rows * rows * 16 * size)
    for batch, context in [(1, 1024), (8, 1024), (32, 1024), (8, 8192)]:
        copies = max(1, (512 << 20) // (batch * context * 4 * 128 * 4))
        q = random(batch, 32, 1, 128)
        layers = [(random(batch, 4, context, 128), random(batch, 4, context, 128)) for _ in range(copies)]
        for backend in backends:
            try:
                with sdpa_kernel(backend):
                    def call():
                        for k, v in layers:
                            torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
                    call()
                    torch.cuda.synchronize()
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        call()
                    seconds = measure(graph.replay) / copies
                rate = batch * context * 4 * 128 * 4 / seconds / 1e9
                print(f"decode batch {batch} context {context:<14} {backend.name:20} {seconds * 1e6:10.2f} us"
                      f" {rate:7.1f} GB/s", flush=True)
            except RuntimeError as error:
                print(f"decode batch {batch} context {context} {backend.name} {str(error).splitlines()[0][:80]}", flush=True)


if __name__ == "__main__":
    main()
