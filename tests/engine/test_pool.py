"""The pool: results in order, the same bits from any number of threads, Ctrl-C for all."""

import contextvars
import hashlib
import signal
import threading
import time
from contextlib import closing

import pytest
import torch
from waiting import wait_for

import sdegen as sg
from sdegen.core.interrupt import DeferredInterrupt, is_interrupted
from sdegen.engine import pool
from sdegen.engine.blocks import solve_block
from sdegen.engine.pool import available_cores, check_threads, map_blocks

F64 = torch.float64
ROWS = 50_000
WELL = sg.ItoProcess(lambda x, t: torch.sin(3 * x) - torch.tanh(x) * t, 0.7)
TIMES = torch.tensor([0.0, 0.1, 0.2], dtype=F64)


def computed(work, blocks, threads):
    with DeferredInterrupt() as interrupt:
        return list(map_blocks(work, blocks, threads=threads, interrupt=interrupt))


def hashes(blocks, threads, dtype):
    """sha256 of the states of each block, in the order of their numbers."""
    x0 = torch.linspace(-1, 1, ROWS, dtype=F64).to(dtype)[:, None]

    def work(b):
        block = solve_block(
            WELL, sg.EulerMaruyama(substeps=3), x0, TIMES, block=b, seed=11, keep_path=True
        )
        return hashlib.sha256(block.states.numpy().tobytes()).hexdigest()

    with torch.no_grad():
        return [h for _, h in sorted(computed(work, blocks, threads))]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_no_bit_depends_on_threads_or_on_the_order_of_blocks(dtype):
    one = hashes(range(6), 1, dtype)
    assert len(set(one)) == 6
    assert hashes(range(6), 2, dtype) == one
    assert hashes([3, 0, 5, 1, 4, 2], 3, dtype) == one


def test_simulate_has_the_same_bits_on_any_number_of_threads():
    x0 = torch.linspace(-1, 1, 3 * ROWS + 7)[:, None]
    runs = [sg.simulate(WELL, x0, TIMES, rng=3, threads=n) for n in (1, 2, 5)]
    assert all(torch.equal(run.states, runs[0].states) for run in runs)
    # a full block does not know of the others, nor that they run on threads
    alone = sg.simulate(WELL, x0[:ROWS], TIMES, rng=3)
    assert torch.equal(alone.states, runs[0].states[:, :ROWS])


def test_results_come_in_order_whatever_takes_longest():
    def work(b):
        time.sleep(0.02 * (5 - b))
        return b * b

    assert computed(work, range(5), 4) == [(b, b * b) for b in range(5)]
    assert computed(work, [], 4) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_is_computed_ahead_than_two_results_a_thread(threads):
    begun = []
    with DeferredInterrupt() as interrupt:
        results = map_blocks(
            lambda b: begun.append(b), range(50), threads=threads, interrupt=interrupt
        )
        with closing(results):
            for k, _ in enumerate(results):
                time.sleep(0.01)
                assert len(begun) <= k + 1 + 2 * threads
                if k == 9:
                    break
    assert len(begun) < 20


def test_an_error_comes_in_its_place_and_stops_the_others():
    begun = []

    def work(b):
        begun.append(b)
        if b == 3:
            raise ZeroDivisionError("mine")
        return b

    seen = []

    def go():
        with DeferredInterrupt() as interrupt:
            for b, _ in map_blocks(work, range(100), threads=2, interrupt=interrupt):
                seen.append(b)

    with pytest.raises(ZeroDivisionError, match="mine"):
        go()
    assert seen == [0, 1, 2]
    assert max(begun) < 10
    assert not [t for t in threading.enumerate() if t.daemon and "_run" in repr(t)]


def test_threads_have_the_surroundings_of_their_caller():
    word = contextvars.ContextVar("word")
    word.set("here")

    def work(b):
        return (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), word.get())

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        seen = computed(work, range(4), 2)
    assert {result for _, result in seen} == {(False, True, "here")}
    assert {result[0] for _, result in computed(work, range(4), 2)} == {True}


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_torchs_own_threads_stand_still_and_are_given_back(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seen = computed(lambda b: torch.get_num_threads(), range(4), threads)
        assert {count for _, count in seen} == {1}
        assert torch.get_num_threads() == 2
        # fewer blocks than threads: what is left over works within the block
        assert computed(lambda b: torch.get_num_threads(), range(1), 2) == [(0, 2)]
    finally:
        torch.set_num_threads(before)


def test_one_lost_trajectory_in_one_block_of_many():
    n = 4 * ROWS
    x0 = torch.full((n, 1), -1.0, dtype=F64)
    x0[2 * ROWS + 5] = 1e60
    sde = sg.ItoProcess(lambda x: x * x, 0.0)
    times = 0.05 * torch.arange(9, dtype=F64)
    messages = set()
    for threads in (1, 2):
        with pytest.raises(sg.NonFiniteError, match=rf"1 of {3 * ROWS} trajectories") as caught:
            sg.simulate(sde, x0, times, threads=threads)
        assert caught.value.result.nonfinite.nonzero().tolist() == [[2 * ROWS + 5]]
        messages.add(str(caught.value))
        frozen = sg.simulate(sde, x0, times, threads=threads, on_nonfinite="freeze")
        assert frozen.nonfinite.nonzero().tolist() == [[2 * ROWS + 5]]
    assert len(messages) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_a_ctrl_c_stops_all_after_their_step_and_keeps_what_is_done(threads):
    steps, n = 50, 6 * ROWS
    calls = []

    def drift(x):
        calls.append(len(x))
        if len(x) == ROWS and calls.count(ROWS) == 2 * steps + 20:  # two blocks, and some
            signal.raise_signal(signal.SIGINT) if threads == 1 else pressed.set()
        if pressed.is_set():
            time.sleep(0.005)  # a busy machine may deliver it late
        return -x

    pressed = threading.Event()
    if threads == 2:

        def press():
            pressed.wait()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        threading.Thread(target=press, daemon=True).start()
    sde = sg.ItoProcess(drift, 0.5)
    solver = sg.EulerMaruyama(substeps=steps)
    with pytest.raises(sg.Interrupted, match=r"interrupted: .* trajectories are done") as caught:
        sg.simulate(sde, torch.zeros(n, 1), [0.0, 1.0], solver=solver, rng=0, threads=threads)
    done = caught.value.result
    assert 0 < len(done.nonfinite) < n
    assert len(done.nonfinite) % ROWS == 0
    assert calls.count(ROWS) < 5 * steps
    if done.times[-1] == 1.0:
        whole = sg.simulate(
            sg.ItoProcess(lambda x: -x, 0.5), torch.zeros(n, 1), [0.0, 1.0], solver=solver, rng=0
        )
        assert torch.equal(done.final, whole.final[: len(done.nonfinite)])


def test_a_block_that_ended_before_an_earlier_one_is_left_out():
    """Row i of an interrupted result began at row i of x0, whichever thread was faster."""
    ended = threading.Event()

    def drift(x, t):
        if len(x) == ROWS and float(x[0]) < 0.5 and t > 0.3:  # the first block waits for others
            assert ended.wait(60)
        if len(x) == ROWS and float(x[0]) > 2.5:  # the fourth: the second and third are done
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            while not interrupted():
                time.sleep(0.01)
            ended.set()
        return 0 * x

    interrupted = is_interrupted
    sde = sg.ItoProcess(drift, 0.0)
    x0 = torch.arange(4).repeat_interleave(ROWS)[:, None].double()
    solver = sg.EulerMaruyama(substeps=4)
    with pytest.raises(sg.Interrupted) as caught:
        sg.simulate(sde, x0, [0.0, 1.0], solver=solver, threads=2)
    done = caught.value.result
    assert done.times.tolist() == [0.0]  # of the first block, cut
    assert torch.equal(done.final, x0[:ROWS])


_SLOW = r"""
import signal, sys, time, torch, sdegen as sg
def drift(x):
    if len(x) == 50_000:  # a block, and not what is looked at before
        sys.stdout.write("in the step\n")
        sys.stdout.flush()
        while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            time.sleep(0.01)
        sys.stdout.write("heard\n")
        sys.stdout.flush()
        time.sleep(3600)
    return -x
sg.simulate(sg.ItoProcess(drift, 0.5), torch.zeros(200_000, 1), [0.0, 1.0], threads=2)
"""


def test_a_second_ctrl_c_leaves_at_once(programs):
    program = programs.start(code=_SLOW)
    for told in ("in the step\n", "heard\n"):
        wait_for(lambda told=told: told in program.written(), program)
        program.send_signal(signal.SIGINT)
    out, err = program.communicate()  # and not the hour that the step takes
    assert out.startswith("in the step\n")
    assert "Interrupted" in err


@pytest.mark.parametrize(
    ("threads", "error", "message"),
    [
        (0, ValueError, "threads must be ≥ 1, but is 0; pass None for the cores"),
        (-2, ValueError, "threads must be ≥ 1, but is -2"),
        (2.0, TypeError, "threads must be an int or None, but is float"),
        (True, TypeError, "threads must be an int or None, but is bool"),
        ("2", TypeError, "threads must be an int or None, but is str"),
    ],
)
def test_what_is_no_number_of_threads_is_refused(threads, error, message, as_user):
    with pytest.raises(error, match=message):
        check_threads(threads)
    with pytest.raises(error, match=message):
        sg.simulate(WELL, torch.zeros(2, 1), TIMES, threads=threads)


def test_the_cores_are_those_of_the_process_and_of_its_container(tmp_path, monkeypatch):
    assert check_threads(3) == 3
    assert check_threads(None) == available_cores() >= 1
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(pool, "_QUOTA", quota)
    monkeypatch.setattr(pool.os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert available_cores() == 16  # no container
    for text, cores in (("max 100000", 16), ("400000 100000", 4), ("50000 100000", 1)):
        quota.write_text(text)
        assert available_cores() == cores
