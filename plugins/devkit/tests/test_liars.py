"""The kit catches liars: each wrong backend breaks the law that it is said to break."""

from __future__ import annotations

from pathlib import Path

import pytest

from .liars import LIARS

pytestmark = pytest.mark.proof  # of the kit, and the same on every Python


def names_of(liar):
    law, claims = LIARS[liar]
    return [f"test_{law.lower()}_{claim}" for claim in claims]


class Court:
    """A plugin of the inner session: of each liar, the tests that it must break, each until one set of values does."""

    def __init__(self) -> None:
        self.broken: set[tuple[str, str]] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.originalname in names_of(item.cls.__name__.removeprefix("Test"))]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        if (item.cls.__name__.removeprefix("Test"), item.originalname) in self.broken:
            pytest.skip("convicted")

    def pytest_runtest_logreport(self, report):
        _, name, test = report.nodeid.split("::", 2)
        if report.failed and report.when == "call":  # what breaks before or after is a fault of these tests
            self.broken.add((name.removeprefix("Test"), test.partition("[")[0]))


@pytest.fixture(scope="session")
def court(tmp_path_factory):
    """Return what says which liars of a law broke which test; all of a law are tried in one session."""
    held = {}

    def hold(law):
        if law not in held:
            court = held[law] = Court()
            names = [liar for liar in LIARS if LIARS[liar][0] == law]
            places = [f"{Path(__file__).parent / 'liars.py'}::Test{name}" for name in names]
            arguments = ["-qq", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
            pytest.main([*arguments, f"--basetemp={tmp_path_factory.mktemp(law)}", *places], plugins=[court])
        return held[law].broken

    return hold


@pytest.mark.parametrize("liar", LIARS)
def test_a_liar_breaks_its_law(court, liar):
    broken = court(LIARS[liar][0])
    kept = [name for name in names_of(liar) if (liar, name) not in broken]
    assert not kept, f"{liar} was let go by {kept}"


def test_there_are_forty_liars_and_some_for_every_law():
    assert len(LIARS) >= 40
    assert {law for law, _ in LIARS.values()} == {f"E{number}" for number in range(1, 17)}
