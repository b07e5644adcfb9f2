import os
import signal
import threading

import pytest

from varshift_cli.interrupts import held_interrupts, tidied

pytestmark = pytest.mark.usefixtures("heard")


def press():
    """What Ctrl-C does."""
    os.kill(os.getpid(), signal.SIGINT)


def test_held():
    """An interrupt waits for the end of the block, and comes then."""
    steps = []

    def run():
        with held_interrupts():
            press()
            steps.append("went on")

    with pytest.raises(KeyboardInterrupt):
        run()

    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_held_once():
    """Where one is held, the second comes at once; and no more than one comes."""
    steps = []

    def run():
        with held_interrupts(most=1):
            press()
            steps.append("held")
            press()
            steps.append("went on")

    with pytest.raises(KeyboardInterrupt):
        run()

    assert steps == ["held"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_tidied_whole():
    """An interrupt while tidying lets it end, and comes then."""
    steps = []

    def tidy():
        steps.append("first")
        press()
        steps.append("second")

    with pytest.raises(KeyboardInterrupt), tidied(tidy):
        pass

    assert steps == ["first", "second"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit, None])
def test_tidied_once(error):
    """Once on every exit, and the exception is the one that was raised."""
    steps = []

    def run():
        with tidied(lambda: steps.append("tidy")):
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert steps == ["tidy"]


def test_other_threads_hold_nothing():
    """In a thread that nobody interrupts the block simply runs, and no handler is touched."""
    seen = []

    def run():
        with held_interrupts():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert seen == [signal.default_int_handler]


def test_a_handler_of_the_users_own():
    """Held interrupts go to whoever handled them before."""
    came = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        with held_interrupts():
            press()
            assert came == []
        assert came == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
