import signal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker

from memmeta.peak_memory import LiveBytes, measure_peak

CPU = torch.device("cpu")


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8))
def test_peak_of_a_known_sequence(sizes):
    def step():
        for size in sizes:
            torch.empty(size, dtype=torch.uint8)  # released at once
        kept = [torch.empty(size, dtype=torch.uint8) for size in sizes]
        return len(kept)

    held = torch.empty(7, dtype=torch.uint8)
    result, peak = measure_peak(step, lambda: [held], CPU)
    assert result == len(sizes)
    assert peak == 7 + sum(sizes)


def test_views_and_in_place_operations_hold_no_more():
    def step():
        x = torch.empty(10, dtype=torch.uint8)
        y = x.view(2, 5)[1:]
        y.add_(1)

    assert measure_peak(step, list, CPU)[1] == 10


def test_what_is_released_is_counted_no_more():
    with LiveBytes() as live:
        x = torch.empty(100, dtype=torch.uint8)
        del x
        assert live.current == 0
        y = torch.empty(50, dtype=torch.uint8)  # may well get the id of x
        assert live.current == 50
        del y
    assert live.peak == 100


def test_equals_pytorchs_own_tracker_on_a_training_step():
    def make():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        model.append(nn.Linear(8 * 49, 5))
        return model, torch.optim.Adam(model.parameters())

    def step(model, optimizer):
        optimizer.zero_grad()
        images = torch.randn(16, 1, 16, 16)
        nn.functional.cross_entropy(model(images), torch.zeros(16, dtype=torch.int64)).backward()
        optimizer.step()

    model, optimizer = make()
    step(model, optimizer)

    def held():
        state = [t for entry in optimizer.state.values() for t in entry.values()]
        return [*model.parameters(), *(p.grad for p in model.parameters()), *state]

    _, ours = measure_peak(lambda: step(model, optimizer), held, CPU)

    model, optimizer = make()
    step(model, optimizer)
    theirs = MemTracker()
    theirs.track_external(model, optimizer)
    with theirs:
        step(model, optimizer)
    assert ours == theirs.get_tracker_snapshot("peak")[CPU]["Total"]


def test_no_interrupt_is_lost_while_tensors_are_released():
    def work(steps):
        with LiveBytes():
            for _ in range(steps):
                torch.ones(4) + 1

    work(1)  # imports what PyTorch needs for it
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for attempt in range(60):
            signal.setitimer(signal.ITIMER_REAL, 0.01 + 0.0007 * attempt)
            with pytest.raises(KeyboardInterrupt):
                work(100_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
