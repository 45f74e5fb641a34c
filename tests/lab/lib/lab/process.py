"""Child processes that cannot outlive the lab."""

import concurrent.futures
import ctypes
import signal
import subprocess

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1

# The kernel sends the death signal when the *thread* that forked ends: all children are started by this
# one thread, which lives as long as the program.
_SPAWNER = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def _die_with_parent():
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def spawn(argv, **options):
    """subprocess.Popen for a child that is killed when this program ends, even by SIGKILL."""
    options.setdefault("stdin", subprocess.DEVNULL)
    argv = [str(a) for a in argv]
    return _SPAWNER.submit(subprocess.Popen, argv, preexec_fn=_die_with_parent, **options).result()


def stop(child, grace=5.0):
    """End a child started by `spawn`: politely, then for good. Returns its exit status."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


def run(argv, **options):
    """Run a command to its end; an exception carries what it printed."""
    argv = [str(a) for a in argv]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout.strip()}")
    return done.stdout
