"""`PatternPackager`, `HybridPackager`, and what the hook keeps of the commit."""

from __future__ import annotations

import pytest
from nemorun_git import GitArchivePackager, HybridPackager, PatternPackager
from nemorun_git.hooks import nemorun_provenance, without_credentials

from nemorun_core import Experiment, LocalExecutor, Script, UsageError

HTTPS = "https" + "://"


@pytest.fixture
def folder(tmp_path):
    for name in ("train.py", "src/a.py", "src/deep/b.py", "src/deep/__pycache__/b.pyc", "data/x.bin", ".git/config"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(contents):
    return sorted(file.name for file in contents.files)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.py", ["train.py"]),
        ("**/*.py", ["src/a.py", "src/deep/b.py", "train.py"]),
        ("src", ["src/a.py", "src/deep/b.py"]),
        (["train.py", "data/*"], ["data/x.bin", "train.py"]),
        (".", ["data/x.bin", "src/a.py", "src/deep/b.py", "train.py"]),
    ],
)
def test_files_that_match_travel(folder, pattern, expected):
    assert names(PatternPackager(include_pattern=pattern).collect(str(folder))) == expected


def test_names_are_relative_to_the_given_folder_also_of_absolute_patterns(folder):
    for pattern in ("**/*.py", f"{folder}/src/**/*.py"):
        contents = PatternPackager(include_pattern=pattern, relative_path="src").collect(str(folder))
        assert names(contents) == ["a.py", "deep/b.py"]
        assert list(contents.roots) == [("", str(folder / "src"))]


@pytest.mark.parametrize("pattern", ["*.txt", "../*", "/etc/*", ""])
def test_a_pattern_that_matches_nothing_below_the_folder_is_refused(folder, pattern):
    with pytest.raises(UsageError, match="matches no file below"):
        PatternPackager(include_pattern=pattern).collect(str(folder))


def test_exclusions_and_links_that_leave_are_said(folder):
    (folder / "out").symlink_to("/etc/hostname")
    (folder / "in").symlink_to("src")
    contents = PatternPackager(include_pattern=".", exclude=["data", "*.py"]).collect(str(folder))
    assert names(contents) == ["in"]
    assert sorted(contents.left_out) == ["4 files by exclude", "out (a link that leaves it: /etc/hostname)"]


def test_a_hybrid_puts_each_into_a_folder_of_its_name_or_all_at_the_root(folder, repo):
    repo.commit(a="1")
    parts = {
        "code": GitArchivePackager(),
        "data": PatternPackager(include_pattern="x.bin", relative_path=f"{folder}/data"),
    }
    contents = HybridPackager(sub_packagers=parts).collect(str(repo.path))
    assert names(contents) == ["code/a", "data/x.bin"]
    assert contents.roots == [("code", str(repo.path)), ("data", str(folder / "data"))]
    contents = HybridPackager(sub_packagers=parts, extract_at_root=True).collect(str(repo.path))
    assert names(contents) == ["a", "x.bin"]
    assert contents.roots == [("", str(repo.path)), ("", str(folder / "data"))]


def test_a_hybrid_refuses_two_files_of_one_name_and_names_both(repo):
    repo.commit(a="1")
    parts = {"one": GitArchivePackager(), "two": PatternPackager(include_pattern="a")}
    with pytest.raises(UsageError, match="'one' and 'two' both bring 'a'"):
        HybridPackager(sub_packagers=parts, extract_at_root=True).collect(str(repo.path))
    with pytest.raises(UsageError, match="is no name of a folder"):
        HybridPackager(sub_packagers={"../x": GitArchivePackager()}).collect(str(repo.path))


def test_a_hybrid_says_who_leaves_what_out(repo):
    repo.commit(a="1")
    repo.write(new="1")
    hybrid = HybridPackager(sub_packagers={"code": GitArchivePackager(untracked="ignore")})
    assert hybrid.collect(str(repo.path)).left_out == ["code: new (untracked)"]


def test_a_hybrid_is_written_down_with_its_parts(repo):
    repo.commit(a="echo here")
    hybrid = HybridPackager(sub_packagers={"code": GitArchivePackager(exclude=["x"])})
    with Experiment("hybrid", log_level="WARNING") as experiment:
        experiment.add(Script("code/a"), LocalExecutor(packager=hybrid))
        experiment.run(check=True)
    again = Experiment.from_id(experiment.id).reset()
    with again:
        again.run(check=True)


# Provenance.


def facts(repo):
    return nemorun_provenance({"cwd": str(repo.path)})


def test_commit_branch_remote_diff_and_untracked_files_are_kept(repo):
    commit = repo.commit(a="1\n")
    repo.git("remote", "add", "origin", f"{HTTPS}user:token@example.com/x.git")
    repo.write(a="2\n", new="3")
    found = facts(repo)
    assert "-1\n+2\n" in found.pop("diff")
    assert found == {"commit": commit, "branch": "main", "remote": "https://example.com/x.git", "untracked": "new"}


def test_what_is_not_there_is_not_kept(repo, tmp_path):
    assert facts(repo) == {"branch": "main"}
    repo.commit(a="1")
    repo.git("checkout", "-q", "--detach")
    assert set(facts(repo)) == {"commit"}
    assert nemorun_provenance({"cwd": str(tmp_path)}) is None


def test_a_long_diff_is_cut_and_says_so(repo):
    repo.commit(a="1")
    repo.write(a="x\n" * 200_000)
    diff = facts(repo)["diff"]
    assert len(diff) < 300_000
    assert diff.endswith("characters, cut]")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (f"{HTTPS}user:token@example.com/x", "https://example.com/x"),
        (f"{HTTPS}ghp_token@example.com/x", "https://example.com/x"),
        ("ssh://git@example.com/x", "ssh://example.com/x"),
        ("git@example.com:x/y.git", "git@example.com:x/y.git"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("/srv/x.git", "/srv/x.git"),
    ],
)
def test_addresses_lose_their_credentials(given, kept):
    assert without_credentials(given) == kept


def test_a_change_in_the_instant_of_the_commit_is_seen(repo):
    for number in range(5):
        repo.commit(a="1\n")
        repo.write(a=f"{number + 2}\n")
        assert f"+{number + 2}\n" in facts(repo)["diff"]
        repo.git("checkout", "-q", "--", "a")
