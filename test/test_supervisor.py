# SPDX-License-Identifier: Apache-2.0
"""A set of processes that starts together, ends together and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import fleet
from fleet.errors import FleetError
from fleet.supervisor import Command, Supervisor

DEADLINE = 30.0

# Every child says what it does through a pipe with a name, so that nobody has to guess when it is ready.
PREAMBLE = """
import os, signal, sys
def say(word):
    with open(os.environ["SAID"], "a") as pipe:
        pipe.write(word + "\\n")
def stop_on_interrupt(word="", code=0):
    def stop(*_):
        if word:
            say(word)
        os._exit(code)
    signal.signal(signal.SIGINT, stop)
"""
OBEDIENT = "stop_on_interrupt(); say('ready'); [signal.pause() for _ in iter(int, 1)]"
DEAF = "[signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; say('ready'); [signal.pause() for _ in iter(int, 1)]"


def child(name, code=OBEDIENT, **options):
    return Command(name, (sys.executable, "-I", "-S", "-c", PREAMBLE + code), **options)


def exits_when_told(pipe):
    return f"stop_on_interrupt(); say('ready'); open({str(pipe)!r}).read(); sys.exit(0)"


class Ear:
    """What the children say, as they say it; ``on[word]`` is done when a word was said ``times[word]`` times."""

    def __init__(self, path):
        self.path = path
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR)  # kept open for writing as well: it never ends
        self.heard, self.on = [], {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def when(self, count, word, action):
        self.on[word] = (count, action)

    def _listen(self):
        rest = b""
        while True:
            *lines, rest = (rest + os.read(self._pipe, 4096)).split(b"\n")
            for line in lines:
                word = line.decode()
                if word == "enough":
                    return
                self.heard.append(word)
                count, action = self.on.get(word, (0, None))
                if self.heard.count(word) == count:
                    action()

    def close(self):
        os.write(self._pipe, b"enough\n")
        self._thread.join(5)
        os.close(self._pipe)


@pytest.fixture
def ear(tmp_path, monkeypatch):
    ear = Ear(tmp_path / "said")
    monkeypatch.setenv("SAID", str(ear.path))
    yield ear
    ear.close()


@pytest.fixture
def reported():
    return []


@pytest.fixture
def left_over():
    """Children that this test has made: a library that another test used may keep a helper of its own."""
    before = set(psutil.Process().children())
    return lambda: set(psutil.Process().children()) - before


@pytest.fixture
def run(ear, reported, left_over):
    """Runs commands until they end; nothing of them may be left."""

    def run_them(*commands, stop_after=None, **options):
        report = options.pop("report", reported.append)
        supervisor = Supervisor(commands, report=report, grace=0.0, **options)
        stopped = []
        if stop_after is not None:
            ear.when(*stop_after, lambda: (stopped.append(time.monotonic()), supervisor.stop()))
        code = supervisor.run()
        if stopped:
            assert time.monotonic() - stopped[0] < 3.0
        assert not supervisor._running
        assert not left_over()
        return code

    return run_them


# How a run ends -----------------------------------------------------------------------------------------------
def test_the_run_is_over_when_a_process_that_ends_it_has_done_its_work(run, reported, tmp_path, ear):
    os.mkfifo(tmp_path / "go")
    ear.when(2, "ready", lambda: (tmp_path / "go").write_text(""))
    code = run(child("bridge"), child("device", exits_when_told(tmp_path / "go"), ends_run=True))
    assert code == 0
    assert reported == []


def test_a_process_that_dies_is_named_and_fails_the_run_which_goes_on(run, reported, tmp_path, ear):
    os.mkfifo(tmp_path / "go")

    def report(line):
        reported.append(line)
        (tmp_path / "go").write_text("")

    code = run(
        child("hub", "say('ready'); sys.exit(3)"),
        child("device", exits_when_told(tmp_path / "go"), ends_run=True, needed=True),
        report=report,
    )
    assert reported == ["hub died (exit code 3)"]
    assert code == 1


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("sys.exit(1)", "exit code 1"),
        ("sys.exit(0)", "exit code 0"),
    ],
)
def test_the_death_of_a_process_that_is_needed_ends_the_run_with_its_reason(run, reported, code, why):
    assert run(child("bridge"), child("device", code, needed=True)) == 1
    assert reported == [f"device died ({why})"]


def test_of_a_kind_the_last_to_end_ends_the_run(run, reported, ear, tmp_path):
    """One camera's film is shorter than the other's."""
    os.mkfifo(tmp_path / "go")
    crew = {"kind": "device", "ends_run": True, "needed": True}
    ear.when(1, "short", lambda: (tmp_path / "go").write_text(""))
    long = f"say('ready'); open({str(tmp_path / 'go')!r}).read(); say('long')"
    assert run(child("a", "say('short')", **crew), child("b", long, **crew), child("hub")) == 0
    assert reported == []
    assert "long" in ear.heard


def test_of_a_kind_the_death_of_one_is_told_and_the_others_go_on(run, reported, tmp_path):
    os.mkfifo(tmp_path / "go")

    def report(line):
        reported.append(line)
        (tmp_path / "go").write_text("")

    crew = {"kind": "device", "ends_run": True, "needed": True}
    rest = f"open({str(tmp_path / 'go')!r}).read()"
    assert run(child("a", "sys.exit(1)", **crew), child("b", rest, **crew), child("hub"), report=report) == 1
    assert reported == ["a died (exit code 1)"]


def test_a_program_that_the_user_can_mend_has_said_why_and_its_exit_code_passes_through(run, reported):
    assert run(child("bridge"), child("hub", "sys.exit(2)")) == 2
    assert reported == []


def test_bad_input_counts_for_more_than_a_death(run, reported, tmp_path):
    os.mkfifo(tmp_path / "go")

    def report(line):
        reported.append(line)
        (tmp_path / "go").write_text("")

    code = run(
        child("bridge", "sys.exit(1)"),
        child("hub", f"open({str(tmp_path / 'go')!r}).read(); sys.exit(2)"),
        report=report,
    )
    assert code == 2
    assert reported == ["bridge died (exit code 1)"]


def test_a_run_of_which_nothing_is_left_is_over(run, reported):
    assert run(child("a", "sys.exit(1)"), child("b", "sys.exit(1)")) == 1
    assert sorted(reported) == ["a died (exit code 1)", "b died (exit code 1)"]


# Stopping -----------------------------------------------------------------------------------------------------
def test_stop_ends_everything_quietly(run, reported):
    assert run(child("a"), child("b"), child("c"), stop_after=(3, "ready")) == 0
    assert reported == []


def test_a_process_that_hears_no_signal_is_killed_in_time_and_named(run, reported):
    assert run(child("deaf", DEAF), child("obedient"), stop_after=(2, "ready")) == 1
    assert reported == ["deaf did not stop and was killed"]


def test_a_process_that_has_not_come_to_its_handlers_yet_is_stopped_quietly(run, reported):
    """It ignores Ctrl-C while it loads; the second signal ends it."""
    assert run(child("loading", "say('ready'); [signal.pause() for _ in iter(int, 1)]"), stop_after=(1, "ready")) == 0
    assert reported == []


def test_listeners_are_stopped_after_those_they_listen_to(run, ear):
    """The monitor is started first and hears the last word of the others before it is asked to stop itself."""
    commands = [
        child("monitor", OBEDIENT.replace("stop_on_interrupt()", "stop_on_interrupt('monitor stops')"), listens=True),
        child("device", OBEDIENT.replace("stop_on_interrupt()", "stop_on_interrupt('device stops')")),
        child("hub", OBEDIENT.replace("stop_on_interrupt()", "stop_on_interrupt('hub stops')")),
    ]
    assert run(*commands, stop_after=(3, "ready")) == 0
    deadline = time.monotonic() + 5
    while len(ear.heard) < 6 and time.monotonic() < deadline:
        os.sched_yield()
    assert ear.heard[-1] == "monitor stops"
    assert sorted(ear.heard[3:5]) == ["device stops", "hub stops"]


@pytest.mark.parametrize(("code", "result", "said"), [(2, 2, []), (3, 1, ["monitor died (exit code 3)"])])
def test_a_process_that_fails_while_it_stops_fails_the_run(run, reported, code, result, said):
    """The monitor writes its file at the very end: that it could not must not be lost."""
    stopping = OBEDIENT.replace("stop_on_interrupt()", f"stop_on_interrupt(code={code})")
    assert run(child("monitor", stopping, listens=True), child("device"), stop_after=(2, "ready")) == result
    assert reported == said


def test_a_run_that_was_stopped_before_it_began_starts_nothing(reported):
    supervisor = Supervisor([Command("x", ("/no/such/program",))], report=reported.append)
    supervisor.stop()
    assert supervisor.run() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_run_and_finds_its_old_handler_afterwards(ear, reported, number):
    before = signal.getsignal(number)
    supervisor = Supervisor([child("a")], report=reported.append)
    ear.when(1, "ready", lambda: os.kill(os.getpid(), number))
    assert supervisor.run() == 0
    assert signal.getsignal(number) == before
    assert reported == []


# Starting -----------------------------------------------------------------------------------------------------
def test_a_program_that_is_not_there_is_one_clear_line_and_the_others_are_stopped(run, ear, left_over):
    with pytest.raises(FleetError, match=r"hub cannot be started: No such file or directory: /no/such/program"):
        run(child("bridge", "signal.signal(2, signal.SIG_DFL)"), Command("hub", ("/no/such/program",)))
    assert not left_over()


def test_two_processes_of_one_name_are_refused(run):
    with pytest.raises(FleetError, match="two processes of one name: hub, hub"):
        run(child("hub"), child("hub"))


def test_children_have_a_session_of_their_own_and_the_environment_that_is_given(run, ear):
    environment = {**os.environ, "COLOUR": "green"}
    code = "say(os.environ['COLOUR']); say(str(os.getsid(0) == os.getpid())); say(sys.stdin.read() + '.')"
    run(child("a", code, ends_run=True), environment=environment)
    deadline = time.monotonic() + 5
    while len(ear.heard) < 3 and time.monotonic() < deadline:
        os.sched_yield()
    assert ear.heard == ["green", "True", "."]


# From outside -------------------------------------------------------------------------------------------------
SCRIPT = """
import sys
from fleet.supervisor import Command, Supervisor
code = sys.argv[1]
commands = [Command(name, (sys.executable, "-I", "-S", "-c", code)) for name in ("one", "two")]
sys.exit(Supervisor(commands, report=print).run())
"""


@pytest.fixture
def outside(ear):
    """A supervisor in a process of its own with two children that run this code, once both are ready."""
    started = []

    def start(code):
        ready = threading.Event()
        ear.when(2, "ready", ready.set)
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, PREAMBLE + code],
            cwd=Path(fleet.__file__).parents[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert ready.wait(DEADLINE), "the children did not start"
        children = psutil.Process(process.pid).children()
        assert len(children) == 2
        return process, children

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_children_do_not_outlive_a_supervisor_that_is_killed(outside):
    process, children = outside("say('ready'); [signal.pause() for _ in iter(int, 1)]")
    process.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(children, timeout=DEADLINE)
    assert not alive


def test_ctrl_c_twice_ends_everything_without_a_traceback(outside):
    process, children = outside(OBEDIENT)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert output == ""
    assert not [c for c in children if c.is_running()]
