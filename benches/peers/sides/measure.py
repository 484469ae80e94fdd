"""What every side needs to measure itself: timed steps, latencies, one JSON line."""

import json
import time


def steps(step, seconds, warm_up):
    """Runs `step` for `seconds` after `warm_up` unmeasured ones; nanoseconds of each."""
    for _ in range(warm_up):
        step()
    clock = time.perf_counter_ns
    took = []
    before = clock()
    until = before + int(seconds * 1e9)
    while before < until:
        step()
        after = clock()
        took.append(after - before)
        before = after
    return took


def tell(took, units, size):
    """Prints the figures of steps that each did `units` of work of `size` bytes."""
    total = sum(took) / 1e9
    ordered = sorted(took)
    line(
        gb_per_s=len(took) * units * size / total / 1e9,
        units_per_s=len(took) * units / total,
        p50_us=ordered[len(ordered) // 2] / 1e3,
        p99_us=ordered[len(ordered) * 99 // 100] / 1e3,
        n=len(took),
    )


def line(**figures):
    """Prints the figures; whatever else a library prints, this is the line that starts with `{`."""
    print(json.dumps(figures), flush=True)
