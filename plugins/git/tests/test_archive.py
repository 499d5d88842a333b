"""What `GitArchivePackager` takes in, what it leaves out and says so, and that it writes nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from nemorun_git import GitArchivePackager
from nemorun_git.repository import Repository

from nemorun_core import Experiment, LocalExecutor, Partial, Script, UsageError

from .conftest import Repo


def collect(repo, cwd=None, **fields):
    return GitArchivePackager(**fields).collect(str(cwd or repo.path))


def names(contents):
    return sorted(file.name for file in contents.files)


def text(contents, name):
    [file] = [file for file in contents.files if file.name == name]
    return file.content.decode() if file.content is not None else Path(file.source).read_text()


def test_tracked_files_travel_as_they_lie_with_changes_and_new_files(repo):
    repo.commit(a="1", sub__b="2")
    repo.write(a="changed", new="3")
    contents = collect(repo)
    assert names(contents) == ["a", "new", "sub/b"]
    assert text(contents, "a") == "changed"
    assert contents.left_out == []
    assert list(contents.roots) == [("", str(repo.path))]


def test_it_is_found_from_a_folder_below(repo):
    repo.commit(a="1", sub__b="2")
    assert names(collect(repo, repo.path / "sub")) == ["a", "sub/b"]


def test_a_subpath_becomes_the_root(repo):
    repo.commit(a="1", sub__deep__b="2", subway="3")
    contents = collect(repo, subpath="sub")
    assert names(contents) == ["deep/b"]
    assert list(contents.roots) == [("", str(repo.path / "sub"))]


@pytest.mark.parametrize("subpath", ["absent", "..", "a"])
def test_a_subpath_that_is_no_folder_of_it_is_refused(repo, subpath):
    repo.commit(a="1")
    with pytest.raises(UsageError, match="has no such folder"):
        collect(repo, subpath=subpath)


def test_uncommitted_changes_are_refused_with_their_names(repo):
    repo.commit(a="1", b="1")
    repo.write(a="2")
    repo.git("mv", "b", "c")
    with pytest.raises(UsageError, match="uncommitted changes, which uncommitted='refuse' does not allow: a, c, b"):
        collect(repo, uncommitted="refuse")
    with pytest.raises(UsageError, match="uncommitted changes"):
        collect(repo, uncommitted="refuse", ref=repo.git("rev-parse", "HEAD"))


def test_uncommitted_changes_are_ignored_and_said(repo):
    repo.commit(a="1", b="1", run="x")
    (repo.path / "run").chmod(0o755)
    repo.commit()
    repo.write(a="2")
    (repo.path / "b").unlink()
    contents = collect(repo, uncommitted="ignore")
    assert (text(contents, "a"), text(contents, "b")) == ("1", "1")
    assert contents.left_out == ["a (uncommitted changes)", "b (uncommitted changes)"]
    assert [file.name for file in contents.files if file.executable] == ["run"]


def test_a_file_that_was_removed_does_not_travel(repo):
    repo.commit(a="1", b="1")
    (repo.path / "b").unlink()
    assert names(collect(repo)) == ["a"]


def test_untracked_files_are_refused_or_ignored_and_said(repo):
    repo.commit(a="1")
    repo.write(new="2", sub__other="3")
    with pytest.raises(UsageError, match="untracked files, which untracked='refuse' does not allow: new, sub/other"):
        collect(repo, untracked="refuse")
    contents = collect(repo, untracked="ignore")
    assert names(contents) == ["a"]
    assert contents.left_out == ["new (untracked)", "sub/other (untracked)"]


def test_what_is_ignored_by_git_stays_unless_a_pattern_names_it(repo):
    repo.commit(_DOT_gitignore="data/\n*.pyc\n", a="1")
    repo.write(data__one="1", data__two="2", x_DOT_pyc="3")
    assert names(collect(repo)) == [".gitignore", "a"]
    assert names(collect(repo, include_pattern="data/o*")) == [".gitignore", "a", "data/one"]
    assert names(collect(repo, include_pattern=["data", "*.pyc"])) == [
        ".gitignore",
        "a",
        "data/one",
        "data/two",
        "x.pyc",
    ]


def test_what_is_excluded_stays_and_is_counted(repo):
    repo.commit(a="1", data__one="1", data__deep__two="2", x_DOT_ckpt="3", sub__y_DOT_ckpt="4")
    contents = collect(repo, exclude=["data/**", "*.ckpt"])
    assert names(contents) == ["a"]
    assert contents.left_out == ["4 files by exclude"]


def test_another_commit_travels_as_it_was_and_what_is_not_in_it_is_said(repo):
    repo.commit(a="1")
    repo.git("tag", "v1")
    repo.commit(a="2", b="2")
    repo.write(a="3")
    contents = collect(repo, ref="v1")
    assert names(contents) == ["a"]
    assert text(contents, "a") == "1"
    assert contents.left_out == ["a (uncommitted changes)"]
    with pytest.raises(UsageError, match="has no commit 'v2'"):
        collect(repo, ref="v2")
    with pytest.raises(UsageError, match="has no commit '--help'"):
        collect(repo, ref="--help")


def test_a_repository_without_a_commit_is_packed_as_it_lies(repo):
    repo.write(a="1")
    repo.git("add", "a")
    repo.write(b="2")
    assert names(collect(repo)) == ["a", "b"]


def test_a_repository_without_a_file_is_refused(repo):
    with pytest.raises(UsageError, match="found nothing to pack"):
        collect(repo)


def test_a_folder_without_a_repository_is_refused_with_what_to_use(tmp_path):
    with pytest.raises(UsageError, match="not a git repository") as caught:
        GitArchivePackager().collect(str(tmp_path))
    assert "PatternPackager" in caught.value.hint


def test_without_git_it_says_so(repo, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no `git` on the PATH"):
        collect(repo)


@pytest.mark.parametrize("field", ["uncommitted", "untracked"])
def test_a_policy_that_is_none_is_refused(repo, field):
    with pytest.raises(UsageError, match=field):
        collect(repo, **{field: "maybe"})


def test_names_with_blanks_newlines_quotes_and_bytes_that_are_no_text(repo):
    odd = ["with space", "new\nline", 'quo"te', "tab\t", "ümlaut", os.fsdecode(b"raw\xff")]
    for name in odd:
        (repo.path / name).write_text("x")
    repo.commit()
    (repo.path / "un\ntracked").write_text("x")
    assert names(collect(repo)) == sorted([*odd, "un\ntracked"])
    assert names(collect(repo, uncommitted="ignore")) == sorted([*odd, "un\ntracked"])


def test_links_are_kept_and_those_that_leave_are_said(repo):
    (repo.path / "inside").symlink_to("sub/a")
    (repo.path / "outside").symlink_to("/etc/hostname")
    (repo.path / "folder").symlink_to("sub")
    (repo.path / "up").symlink_to("../other")
    repo.commit(sub__a="1")
    for fields in ({}, {"uncommitted": "ignore"}):
        contents = collect(repo, **fields)
        assert {file.name: file.link for file in contents.files if file.link} == {"inside": "sub/a", "folder": "sub"}
        assert sorted(contents.left_out) == [
            "outside (a link that leaves it: /etc/hostname)",
            "up (a link that leaves it: ../other)",
        ]


def test_submodules_travel_as_they_lie_or_as_the_commit_names_them(repo, tmp_path):
    inner = Repo(tmp_path / "inner")
    inner.commit(m="1")
    repo.commit(a="1")
    repo.git("submodule", "add", "-q", str(inner.path), "libs/inner")
    repo.commit()
    (repo.path / "libs/inner/m").write_text("2")
    (repo.path / "libs/inner/new").write_text("3")
    contents = collect(repo)
    assert names(contents) == [".gitmodules", "a", "libs/inner/m", "libs/inner/new"]
    assert text(contents, "libs/inner/m") == "2"
    with pytest.raises(UsageError, match="uncommitted changes"):
        collect(repo, uncommitted="refuse")
    contents = collect(repo, uncommitted="ignore", untracked="ignore")
    assert text(contents, "libs/inner/m") == "1"
    assert "libs/inner/m (uncommitted changes)" in contents.left_out
    assert names(collect(repo, subpath="libs/inner")) == ["m", "new"]
    contents = collect(repo, include_submodules=False)
    assert names(contents) == [".gitmodules", "a"]
    assert contents.left_out == ["libs/inner/ (a submodule)"]


def test_a_submodule_that_is_not_checked_out_is_said(repo, tmp_path):
    inner = Repo(tmp_path / "inner")
    inner.commit(m="1")
    repo.git("submodule", "add", "-q", str(inner.path), "inner")
    repo.commit(a="1")
    repo.git("submodule", "deinit", "-f", "inner")
    assert collect(repo).left_out == ["inner/ (a submodule that is not checked out: git submodule update --init)"]


def test_a_repository_within_it_that_is_no_submodule_is_said(repo):
    repo.commit(a="1")
    Repo(repo.path / "other").commit(b="1")
    contents = collect(repo)
    assert names(contents) == ["a"]
    assert contents.left_out == ["other/ (a repository of its own)"]


def test_a_pointer_of_git_lfs_travels_and_is_said(repo):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    repo.commit(weights=pointer, plain="version 1")
    for fields in ({}, {"uncommitted": "ignore"}):
        assert collect(repo, **fields).left_out == [
            "weights (its content is not here, only its Git LFS pointer: git lfs pull)"
        ]


def test_worktrees_and_shallow_clones(repo, tmp_path):
    repo.commit(a="1")
    repo.commit(a="2")
    repo.git("worktree", "add", "-q", str(tmp_path / "tree"), "HEAD~1")
    assert text(GitArchivePackager().collect(str(tmp_path / "tree")), "a") == "1"
    repo.git("clone", "-q", "--depth=1", f"file://{repo.path}", str(tmp_path / "shallow"))
    for fields in ({}, {"uncommitted": "ignore"}):
        assert text(GitArchivePackager(**fields).collect(str(tmp_path / "shallow")), "a") == "2"
    with pytest.raises(UsageError, match="has no commit"):
        GitArchivePackager(ref="HEAD~1").collect(str(tmp_path / "shallow"))


def test_files_that_a_sparse_checkout_keeps_out_travel_all_the_same(repo):
    repo.commit(a="1", big__b="2")
    repo.git("sparse-checkout", "set", "--no-cone", "/a")
    assert not (repo.path / "big").exists()
    contents = collect(repo)
    assert names(contents) == ["a", "big/b"]
    assert text(contents, "big/b") == "2"


def test_a_conflict_counts_as_a_change(repo):
    repo.commit(a="1")
    repo.git("checkout", "-qb", "other")
    repo.commit(a="2")
    repo.git("checkout", "-q", "main")
    repo.commit(a="3")
    with pytest.raises(Exception, match="merge"):
        repo.git("merge", "-q", "other")
    with pytest.raises(UsageError, match="uncommitted changes"):
        collect(repo, uncommitted="refuse")
    assert "<<<<<<<" in text(collect(repo), "a")


def everything(folder):
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.lstat().st_ino, path.lstat().st_size)
        for path in [folder, *folder.rglob("*")]
    }


def test_nothing_in_the_repository_is_written(repo):
    repo.commit(a="1", b="1")
    repo.write(a="2", new="3")
    os.utime(repo.path / "b", (1, 1))  # changed for the index, and the same for a reader
    before = everything(repo.path)
    for fields in ({}, {"uncommitted": "ignore", "untracked": "ignore"}):
        collect(repo, **fields)
    assert Repository(str(repo.path)).diff().startswith("diff --git a/a b/a")
    assert everything(repo.path) == before


def test_variables_of_a_git_hook_do_not_lead_it_elsewhere(repo, monkeypatch, tmp_path):
    other = Repo(tmp_path / "other")
    other.commit(other="1")
    repo.commit(a="1")
    monkeypatch.setenv("GIT_DIR", str(other.path / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other.path / ".git" / "index"))
    assert names(collect(repo)) == ["a"]


@pytest.mark.parametrize("policy", ["include", "ignore", "refuse"])
def test_a_task_sees_its_modules_changes_or_is_refused_and_never_the_old_code(repo, monkeypatch, policy):
    import importlib
    import sys

    repo.commit(**{f"fresh_{policy}_DOT_py": "def show():\n    print('old')\n"})
    repo.write(**{f"fresh_{policy}_DOT_py": "def show():\n    print('new')\n"})
    monkeypatch.syspath_prepend(str(repo.path))
    sys.dont_write_bytecode = True
    module = importlib.import_module(f"fresh_{policy}")
    with Experiment("fresh", log_level="WARNING") as experiment:
        executor = LocalExecutor(packager=GitArchivePackager(uncommitted=policy))
        if policy == "include":
            experiment.add(Partial(module.show), executor, name="job")
            experiment.run()
        else:
            with pytest.raises(UsageError, match=r"another version|uncommitted changes"):
                experiment.add(Partial(module.show), executor)
    if policy == "include":
        folder = experiment.status(return_dict=True)["job"]["local_dir"]
        assert Path(str(folder), "0.0.0.out").read_text() == "new\n"


def test_a_task_of_an_untracked_module_is_refused_where_these_are_ignored(repo, monkeypatch):
    import importlib

    repo.commit(a="1")
    repo.write(untracked_module_DOT_py="def show(): pass\n")
    monkeypatch.syspath_prepend(str(repo.path))
    module = importlib.import_module("untracked_module")
    with Experiment("untracked") as experiment, pytest.raises(UsageError, match="bundle does not hold"):
        experiment.add(Partial(module.show), LocalExecutor(packager=GitArchivePackager(untracked="ignore")))


def test_by_name_with_its_defaults_a_script_runs_in_its_root(repo):
    repo.commit(train="cat data", data="1\n")
    with Experiment("named", log_level="WARNING") as experiment:
        experiment.add(Script("train"), LocalExecutor(packager="git"), name="job")
        experiment.run(check=True)


def test_ten_thousand_files_cost_a_few_calls_of_git_and_one_look_at_each(repo):
    for folder in range(100):
        (repo.path / str(folder)).mkdir()
        for number in range(100):
            (repo.path / str(folder) / str(number)).write_text(f"{folder} {number}")
    repo.commit()
    before = time.process_time()
    assert len(collect(repo).files) == 10_000
    assert time.process_time() - before < 20  # a bound for a runaway, no figure: `nox -s bench` measures
