"""The pytest plugin: a broken law is printed with its sentence, and a table at the end says which laws were kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator

import pytest

__all__: list[str] = []

_LAW = re.compile(r"test_e(\d+)_")
_PROPERTY = "nemorun_law"

pytest.register_assert_rewrite(
    *(
        f"nemorun_devkit.{name}"
        for name in (
            "arrival",
            "base",
            "ends",
            "groups",
            "kills",
            "kit",
            "laws",
            "logs",
            "names",
            "outliving",
            "starts",
            "states",
        )
    )
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "nightly: slow by nature; left out with -m 'not nightly'")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note on each test which law it tests; the note travels with its reports, also from other processes."""
    for item in items:
        found = _LAW.match(item.name)
        if found and getattr(getattr(item, "cls", None), "nemorun_laws", False):
            item.user_properties.append((_PROPERTY, f"E{found[1]}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the law's sentence to the report of a test that broke it."""
    report = yield
    law = _law(report)
    if law and report.failed:
        from nemorun_core import LAWS

        report.sections.append((f"the law {law}", LAWS[law]))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print, for each class that inherits the laws, how many tests of each law were declared, kept, broken, skipped."""
    verdicts: dict[str, dict[str, tuple[str, str]]] = {}
    missing: dict[str, Counter[str]] = {}
    for kind, word in (
        ("passed", "kept"),
        ("skipped", "skipped"),
        ("failed", "broken"),
        ("error", "broken"),
        ("xfailed", "broken"),
    ):
        for report in terminalreporter.stats.get(kind, []):
            if not isinstance(report, pytest.TestReport) or not (law := _law(report)):
                continue
            owner = report.nodeid.split("::")[1]
            verdicts.setdefault(owner, {})[report.nodeid] = (law, word)
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            if word == "skipped":
                missing.setdefault(owner, Counter())[reason.removeprefix("Skipped: ")] += 1
    for owner, seen in sorted(verdicts.items()):
        counts: dict[str, Counter[str]] = {}
        for law, word in seen.values():
            counts.setdefault(law, Counter())[word] += 1
        terminalreporter.section(f"laws of {owner}", "-")
        terminalreporter.write_line(f"{'law':4} {'declared':>9} {'kept':>6} {'broken':>7} {'skipped':>8}")
        for law, row in sorted(counts.items(), key=lambda pair: int(pair[0][1:])):
            kept, broken, skipped = row["kept"], row["broken"], row["skipped"]
            terminalreporter.write_line(f"{law:4} {sum(row.values()):>9} {kept:>6} {broken:>7} {skipped:>8}")
        for reason, count in sorted(missing.get(owner, Counter()).items()):
            terminalreporter.write_line(f"skipped {count}: {reason}")


def _law(report: pytest.TestReport) -> str | None:
    return next((str(value) for name, value in report.user_properties if name == _PROPERTY), None)
