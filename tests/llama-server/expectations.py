"""What expected.txt says of each test."""

from pathlib import Path


def read() -> dict[str, tuple[str, str]]:
    """Kind and reason by test, function or file."""
    found = {}
    for line in (Path(__file__).resolve().parent / "expected.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            kind, rest = line.split(" ", 1)
            name, _, reason = rest.partition(" ")
            if "[" in name:  # a parameter may have a blank in it
                name, _, reason = rest.partition("] ")
                name += "]"
            found[name] = (kind, reason)
    return found


def lookup(name: str, known: dict[str, tuple[str, str]]) -> tuple[str, str]:
    """What is expected of a test such as `unit/test_basic.py::test_server_props`."""
    name = name.removeprefix("unit/test_")
    for key in (name, name.split("[")[0], name.split("::")[0]):
        if key in known:
            return known[key]
    return ("new", "")
