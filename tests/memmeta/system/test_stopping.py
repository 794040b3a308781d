"""Commands that are asked to stop, as processes of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from memmeta import checkpoint
from tests import ROOT
from tests.interrupts import heed_signals
from tests.memmeta.commands.helpers import TINY

SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}
LONG = TINY | {"training": {"iterations": 10**6, "evaluations": 10**4, "val_tasks": 6}}


def start(script: str, *words: object, preexec=heed_signals) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-u", *script.split(), *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=preexec,
    )


@pytest.mark.thorough
def test_training_that_is_asked_to_stop_saves_the_run_between_two_steps(data_root, tmp_path):
    config, saved = tmp_path / "long.yaml", tmp_path / "run.pt"
    config.write_text(yaml.safe_dump(LONG))
    words = ["train", config, "--data-root", data_root, "--out", saved, "--threads", 1]
    process = start("-m memmeta", *words)
    try:
        assert process.stdout.readline().startswith("step    100")
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert output.splitlines()[-1] == "stopped by SIGTERM"
    assert "Traceback" not in output
    steps = checkpoint.load(saved).state["iteration"]
    assert steps > 100
    process = start("-m memmeta", *words)
    try:
        assert f"step {steps}" in process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


WORK = """
import sys, time, click
from memmeta.command_line import run_command
from memmeta.system.stopping import postponed

@click.command()
@click.argument("kind")
def main(kind):
    if kind == "plain":
        print("at work", flush=True)
        time.sleep(60)
    with postponed(2) as stop:
        print("at work", flush=True)
        while kind == "deaf" or not stop.requested:
            time.sleep(0.01)
        print("saved", flush=True)
        raise KeyboardInterrupt

run_command(main)
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("kind", ["plain", "saves", "deaf"])
def test_every_command_stops_within_its_time_and_says_by_what(tmp_path, kind, number):
    script = tmp_path / "work.py"
    script.write_text(WORK)
    process = start(str(script), kind)
    try:
        assert process.stdout.readline() == "at work\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    said = ["saved"] if kind == "saves" else []
    assert output.split("\n") == [*said, "", f"stopped by {SIGNALS[number]}", ""]


def ignore_all() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def test_what_a_process_was_started_to_ignore_it_ignores(tmp_path):
    script = tmp_path / "work.py"
    script.write_text(WORK.replace("time.sleep(60)", "time.sleep(1); sys.exit(3)"))
    process = start(str(script), "plain", preexec=ignore_all)
    try:
        assert process.stdout.readline() == "at work\n"
        for number in SIGNALS:
            process.send_signal(number)
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 3


IN_A_PROGRAM = """
import signal, sys
from memmeta.system.stopping import STOP, heeding_signals, postponed

number, handling = int(sys.argv[1]), sys.argv[2]
if handling == "own":
    signal.signal(number, lambda number, frame: print("own handler"))
before = signal.getsignal(number)
try:
    with heeding_signals(), postponed(5) as stop:
        signal.raise_signal(number)
        print("saved", stop.requested)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
print("restored", signal.getsignal(number) == before, STOP.requested)
with heeding_signals():
    print("again")
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("handling", ["default", "own"])
def test_a_program_gets_the_signal_after_the_work_it_stopped(tmp_path, number, handling):
    script = tmp_path / "program.py"
    script.write_text(IN_A_PROGRAM)
    process = start(str(script), int(number), handling)
    output, _ = process.communicate(timeout=30)
    after = ["KeyboardInterrupt", "restored True False", "again"]
    if handling == "own":
        assert output.splitlines() == ["saved True", "own handler", *after]
    elif number == signal.SIGINT:
        assert output.splitlines() == ["saved True", *after]
    else:
        assert (process.returncode, output.splitlines()) == (-number, ["saved True"])


IN_A_THREAD = """
import threading
from memmeta.system.stopping import heed_signals, heeding_signals

def work():
    heed_signals()
    with heeding_signals():
        print("done")

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_in_other_threads_no_handlers_are_set(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(IN_A_THREAD)
    output, _ = start(str(script)).communicate(timeout=30)
    assert output == "done\n"
