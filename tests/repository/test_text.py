"""What stands in the repository holds for every reader: no paths of one machine, no links that lead out of it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOSTS = {
    "127.0.0.1",
    "example.com",
    "git-lfs",
    "git-lfs.github.com",
    "keepachangelog.com",
    "localhost",
    "semver.org",
    "www.apache.org",
}


def committed() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


TEXTS = {path: path.read_text(errors="ignore") for path in committed()}


def found(pattern: str, where: dict[Path, str] | None = None) -> list[tuple[str, str]]:
    texts = TEXTS if where is None else where
    return [(str(path.relative_to(ROOT)), hit) for path, text in texts.items() for hit in re.findall(pattern, text)]


def test_no_path_of_this_machine_is_named():
    here = [str(ROOT) + "/", str(ROOT.parent) + "/", str(Path.home()) + "/"]
    everywhere = ("/", "/tmp/")  # where a checkout may lie, and which any machine has
    assert not found("|".join(re.escape(path) for path in here if path not in everywhere))


def test_only_known_hosts_are_named():
    """A list of what is allowed: add a host that every reader can be sent to, never one that packages come from."""
    assert not [hit for hit in found(r"\bhttps?://([\w.-]+)") if hit[1] not in HOSTS]


def test_links_of_pages_stay_in_the_repository_and_lead_somewhere():
    pages = {path: text for path, text in TEXTS.items() if path.suffix == ".md"}
    for page, text in pages.items():
        links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) + re.findall(r"(?<![\w./])(\.\./[\w./-]+)", text)
        for link in links:
            target = (page.parent / link).resolve()
            assert target.is_relative_to(ROOT), f"{page.relative_to(ROOT)}: {link} leads out of the repository"
            assert target.exists(), f"{page.relative_to(ROOT)}: {link} is not there"
