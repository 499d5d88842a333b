"""What a packager collects travels with the job: named by content, packed once, unpacked once, run in its root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import nemorun_core as run
from nemorun_core.store import bundles as module
from nemorun_core.store.bundles import bundle_path, bundle_root, digest_of, prune, unpack, write_bundle
from tests.experiment.helpers import launch, log, states


@attrs.define(kw_only=True)
class Folder(run.Packager):
    """Packs every file below a folder, but what ends in `.secret`."""

    path: str = "."

    def collect(self, cwd: str) -> run.Contents:
        base = Path(cwd, self.path).resolve()
        files, left = [], []
        for file in sorted(base.rglob("*")):
            name = str(file.relative_to(base))
            if file.suffix == ".secret":
                left.append(name)
            elif file.is_symlink():
                files.append(run.PackagedFile(name, link=os.readlink(file)))
            elif file.is_file() and "__pycache__" not in name:
                files.append(run.PackagedFile(name, str(file), executable=os.access(file, os.X_OK)))
        return run.Contents(files, [("", str(base))], left)


@attrs.define(kw_only=True)
class Broken(run.Packager):
    def collect(self, cwd: str) -> run.Contents:
        raise RuntimeError("no")


@attrs.define(kw_only=True)
class Elsewhere(run.LocalExecutor):
    """An executor that does not see this machine's files."""

    def capabilities(self) -> run.Capabilities:
        return attrs.evolve(super().capabilities(), shares_files=False)


@pytest.fixture
def code(tmp_path, monkeypatch):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "main.sh").write_text("cat data.txt; pwd")
    (folder / "data.txt").write_text("first\n")
    monkeypatch.chdir(folder)
    return folder


def one(executor, task=None, **options):
    with run.Experiment("bundled", log_level="WARNING", **options) as experiment:
        experiment.add(task or run.Script("main.sh"), executor, name="job")
        experiment.run()
    return experiment


def root_of(experiment):
    folder = Path(str(experiment.status(return_dict=True)["job"]["local_dir"])).parent
    [root] = [path for path in (folder / "bundles").iterdir() if path.is_dir()]
    return root


def test_a_job_runs_in_the_root_of_its_bundle(code):
    experiment = one(run.LocalExecutor(packager=Folder()))
    assert states(experiment) == {"job": "SUCCEEDED"}
    assert log(experiment, "job").splitlines() == ["first", str(root_of(experiment))]


def test_what_is_edited_while_a_job_waits_changes_nothing(code):
    with run.Experiment("waits", log_level="WARNING") as experiment:
        gate = experiment.add(run.Script(inline=f"until [ -e '{code}/gate' ]; do sleep 0.01; done"), name="gate")
        experiment.add(run.Script("main.sh"), run.LocalExecutor(packager=Folder()), name="job", dependencies=[gate])
        experiment.run()
        (code / "data.txt").write_text("second\n")
        (code / "gate").touch()
    assert log(experiment, "job").startswith("first\n")


def test_what_is_edited_between_add_and_run_is_packed(code):
    with run.Experiment("late", log_level="WARNING") as experiment:
        experiment.add(run.Script("main.sh"), run.LocalExecutor(packager=Folder()), name="job")
        (code / "data.txt").write_text("second\n")
        experiment.run()
    assert log(experiment, "job").startswith("second\n")


def test_equal_contents_stand_once_on_disk_and_a_change_is_another_bundle(code, nemorun_home):
    first, second = one(run.LocalExecutor(packager=Folder())), one(run.LocalExecutor(packager=Folder()))
    [shared] = (nemorun_home / "bundles").iterdir()
    assert shared.stat().st_nlink == 3
    assert root_of(first).name == root_of(second).name == shared.stem
    (code / "data.txt").write_text("second\n")
    assert root_of(one(run.LocalExecutor(packager=Folder()))).name != shared.stem


def test_one_bundle_serves_many_jobs_of_an_experiment(code, nemorun_home, monkeypatch):
    calls = []
    real = Folder.collect

    def counted(self, cwd):
        calls.append(cwd)
        return real(self, cwd)

    monkeypatch.setattr(Folder, "collect", counted)
    with run.Experiment("many", run.LocalExecutor(packager=Folder()), log_level="WARNING") as experiment:
        for _ in range(5):
            experiment.add(run.Script("main.sh"))
        experiment.run()
    assert len(calls) == 2  # at the first add, and when it was frozen
    assert set(states(experiment).values()) == {"SUCCEEDED"}
    assert len(list((nemorun_home / "bundles").iterdir())) == 1


def test_links_modes_and_odd_names_are_kept(code):
    (code / "sub dir").mkdir()
    (code / "sub dir" / "a\nb").write_text("odd")
    (code / "link").symlink_to("sub dir/a\nb")
    (code / "program").write_text("#!/bin/sh\necho ran\n")
    (code / "program").chmod(0o755)
    experiment = one(run.LocalExecutor(packager=Folder()), run.Script("program", entrypoint=""))
    root = root_of(experiment)
    assert log(experiment, "job") == "ran\n"
    assert os.readlink(root / "link") == "sub dir/a\nb"
    assert (root / "link").read_text() == "odd"
    assert not os.access(root / "data.txt", os.X_OK) or not (root / "data.txt").stat().st_mode & 0o100


def test_what_is_left_out_is_said_when_a_job_is_added_and_listed_later(code, capsys):
    (code / "key.secret").write_text("x")
    with run.Experiment("says") as experiment:
        experiment.add(run.Script("main.sh"), run.LocalExecutor(packager=Folder()), name="job")
        assert "[nemorun] job: Folder leaves out: key.secret" in capsys.readouterr().out
        experiment.run()
    shown = subprocess.run(
        [sys.executable, "-m", "nemorun_core._cli", "experiment", "show", experiment.id, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    [bundle] = json.loads(shown.stdout)["bundles"]
    assert (bundle["packager"], bundle["files"], bundle["left_out"]) == ("Folder", 2, ["key.secret"])
    text = subprocess.run(
        [sys.executable, "-m", "nemorun_core._cli", "experiment", "show", experiment.id],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "  left out: key.secret" in text
    assert "2 files" in text


def test_the_empty_packager_ships_nothing(code):
    experiment = one(run.LocalExecutor(packager=run.Packager()))
    assert log(experiment, "job").splitlines() == ["first", str(code)]


def test_a_script_that_the_bundle_does_not_hold_is_refused_with_what_to_write(code, monkeypatch):
    (code / "sub").mkdir()
    (code / "sub" / "inner.sh").write_text("echo")
    monkeypatch.chdir(code / "sub")
    with run.Experiment("refused") as experiment:
        with pytest.raises(run.UsageError, match="which does not hold it") as caught:
            experiment.add(run.Script("inner.sh"), run.LocalExecutor(packager=Folder(path="..")))
        assert caught.value.hint == "Use 'sub/inner.sh'."
        with pytest.raises(run.UsageError, match="which does not hold it"):
            experiment.add(run.Script("absent.sh"), run.LocalExecutor(packager=Folder(path="..")))
        assert experiment.jobs == []


def test_a_packager_that_breaks_is_named(code):
    with run.Experiment("broken") as experiment, pytest.raises(run.Defect, match="collect failed"):
        experiment.add(run.Script("main.sh"), run.LocalExecutor(packager=Broken()))


def test_a_dry_run_packs_nothing(code, nemorun_home, capsys):
    with run.Experiment("dry") as experiment:
        experiment.add(run.Script("main.sh"), run.LocalExecutor(packager=Folder()))
        experiment.dryrun()
    assert "/bundles/" in capsys.readouterr().out
    assert not (nemorun_home / "bundles").exists()


def test_direct_refuses_a_packager(code):
    with run.Experiment("direct") as experiment:
        experiment.add(run.Script("main.sh"), run.LocalExecutor(packager=Folder()))
        with pytest.raises(run.UsageError, match="direct runs in this process, without the packager"):
            experiment.run(direct=True)


# Python tasks.

LAUNCH = """
    import sys; sys.path.insert(0, {tests!r})
    from tests.experiment.test_bundles import Folder
    import {module}
    with run.Experiment("python", id="python", log_level="ERROR") as experiment:
        experiment.add(run.Partial({module}.show), run.LocalExecutor(packager=Folder({arguments})), name="job")
        experiment.run()
    sys.stdout.write(open(experiment.status(return_dict=True)["job"]["local_dir"] + "/0.0.0.out").read())
"""


def launched(folder, module, arguments="", env=None):
    tests = str(Path(__file__).parents[2])
    return launch(folder, LAUNCH.format(tests=tests, module=module, arguments=arguments), env=env)


SHOW = "import sys\ndef show():\n    print(__file__)\n    print(sys.path[0])\n"


def test_a_function_is_imported_from_the_bundle_and_not_from_where_it_lies(tmp_path):
    (tmp_path / "shown.py").write_text(SHOW)
    done = launched(tmp_path, "shown")
    assert done.returncode == 0, done.stderr
    file, first = done.stdout.splitlines()[-2:]
    assert "/bundles/" in file
    assert os.path.dirname(file) == first


def test_folders_of_the_bundle_come_first_even_if_nothing_else_of_the_launcher_is_there(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    (source / "shown.py").write_text(SHOW)
    done = launched(tmp_path, "shown", env={"PYTHONPATH": str(source)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2].endswith("/src/shown.py")
    assert "/bundles/" in done.stdout.splitlines()[-2]


def test_a_function_that_the_bundle_leaves_out_is_refused(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "kept.txt").touch()
    (tmp_path / "shown.py").write_text(SHOW)
    done = launched(tmp_path, "shown", "path='inside'")
    assert done.returncode == 0, done.stderr  # it lies elsewhere, and is imported from there
    (tmp_path / "hidden.py").symlink_to("shown.secret")
    (tmp_path / "shown.secret").write_text(SHOW)
    done = launched(tmp_path, "hidden", env={"NEMORUN_HOME": str(tmp_path / "other")})
    assert done.returncode == 1
    assert "UsageError" in done.stderr


def local_function() -> None:
    """Live in a module of these tests, which no distribution installs."""


def test_a_function_of_no_distribution_is_refused_where_files_are_not_shared():
    with run.Experiment("away") as experiment:
        with pytest.raises(run.UsageError, match=r"no distribution installs: tests\.experiment\.test_bundles \(") as it:
            experiment.add(run.Partial(local_function), Elsewhere())
        assert "GitArchivePackager" in it.value.hint
        experiment.add(run.Partial(local_function), Elsewhere(packager=run.Packager()), name="said")
        experiment.add(run.Partial(os.path.join, "a"), Elsewhere(), name="standard")
        experiment.add(run.Partial(attrs.evolve, "a"), Elsewhere(), name="installed")
        assert experiment.jobs == ["said", "standard", "installed"]


# The files themselves.


def packed(tmp_path, files):
    digest, _ = digest_of(files)
    write_bundle(files, digest, str(tmp_path / "shared"), str(tmp_path / "own"))
    return digest


def test_contents_given_as_bytes_are_packed_and_named_alike(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    by_file, by_bytes = [run.PackagedFile("a", str(tmp_path / "a"))], [run.PackagedFile("a", content=b"x")]
    digest = packed(tmp_path, by_bytes)
    assert digest_of(by_file) == (digest, 1)
    unpack(str(tmp_path / "own"), digest)
    unpack(str(tmp_path / "own"), digest)  # once
    assert Path(bundle_root(str(tmp_path / "own"), digest), "a").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (run.PackagedFile("a", content=b""), run.PackagedFile("b", content=b"")),
        (run.PackagedFile("a", content=b""), run.PackagedFile("a", content=b"", executable=True)),
        (run.PackagedFile("a", content=b"x"), run.PackagedFile("a", link="x")),
    ],
)
def test_name_mode_and_kind_are_content_too(one, two):
    assert digest_of([one])[0] != digest_of([two])[0]


@pytest.mark.parametrize(
    "file",
    [
        run.PackagedFile("../a", content=b""),
        run.PackagedFile("/a", content=b""),
        run.PackagedFile("", content=b""),
        run.PackagedFile("a/../b", content=b""),
        run.PackagedFile("a\0", content=b""),
        run.PackagedFile("a", link="/etc/passwd"),
        run.PackagedFile("sub/a", link="../../b"),
        run.PackagedFile("a", "/no/such/file"),
    ],
)
def test_what_would_leave_the_bundle_or_cannot_be_read_is_refused(file):
    with pytest.raises(run.UsageError):
        digest_of([file])


def test_files_that_change_while_they_are_packed_are_refused(tmp_path):
    (tmp_path / "a").write_text("one")
    files = [run.PackagedFile("a", str(tmp_path / "a"))]
    digest, _ = digest_of(files)
    (tmp_path / "a").write_text("two")
    with pytest.raises(run.UsageError, match="changed while"):
        write_bundle(files, digest, str(tmp_path / "shared"), str(tmp_path / "own"))
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_file_that_shrinks_while_it_is_packed_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("one")
    files = [run.PackagedFile("a", str(tmp_path / "a"))]
    digest, _ = digest_of(files)
    real = os.fstat
    monkeypatch.setattr(module.os, "fstat", lambda handle: type("Facts", (), {"st_size": real(handle).st_size + 9})())
    with pytest.raises(run.UsageError, match="changed while"):
        module._write(files, digest, str(tmp_path / "x.tar"))


def test_a_damaged_bundle_is_a_store_error_and_nothing_is_unpacked(tmp_path):
    digest = packed(tmp_path, [run.PackagedFile("a", content=b"x" * 5000)])
    path = Path(bundle_path(str(tmp_path / "own"), digest))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(run.StoreError, match="is damaged"):
        unpack(str(tmp_path / "own"), digest)
    assert [entry.name for entry in (tmp_path / "own").iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["../evil", "/evil"])
def test_a_bundle_from_elsewhere_writes_nothing_outside_its_root(tmp_path, name):
    import io
    import tarfile

    (tmp_path / "own").mkdir()
    with tarfile.open(bundle_path(str(tmp_path / "own"), "d"), "w") as tar:
        info = tarfile.TarInfo(name)
        tar.addfile(info, io.BytesIO())
    with pytest.raises(run.StoreError, match="is damaged"):
        unpack(str(tmp_path / "own"), "d")
    assert not (tmp_path / "evil").exists()


def test_a_device_in_a_bundle_from_elsewhere_is_refused(tmp_path):
    import tarfile

    (tmp_path / "own").mkdir()
    with tarfile.open(bundle_path(str(tmp_path / "own"), "d"), "w") as tar:
        info = tarfile.TarInfo("pipe")
        info.type = tarfile.FIFOTYPE
        tar.addfile(info)
    with pytest.raises(run.StoreError, match="'pipe' is no file"):
        unpack(str(tmp_path / "own"), "d")


def test_bundles_that_no_experiment_has_are_removed_after_a_day(tmp_path):
    used, unused, fresh = (packed(tmp_path, [run.PackagedFile("a", content=bytes([n]))]) for n in range(3))
    for digest in (used, unused):
        os.utime(bundle_path(str(tmp_path / "shared"), digest), (0, 0))
    for digest in (unused, fresh):
        os.unlink(bundle_path(str(tmp_path / "own"), digest))
    prune(str(tmp_path / "shared"))
    assert sorted(path.stem for path in (tmp_path / "shared").iterdir()) == sorted([used, fresh])


def test_where_there_are_no_hard_links_a_bundle_is_copied(tmp_path, monkeypatch):
    def refused(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(module.os, "link", refused)
    digest = packed(tmp_path, [run.PackagedFile("a", content=b"x")])
    assert Path(bundle_path(str(tmp_path / "own"), digest)).stat().st_nlink == 1


def test_different_packagers_have_bundles_of_their_own_and_some_members_none(code):
    (code / "sub").mkdir()
    (code / "sub" / "main.sh").write_text("echo sub")
    executors = [
        run.LocalExecutor(packager=Folder()),
        run.LocalExecutor(packager=Folder(path="sub")),
        run.LocalExecutor(),
    ]
    with run.Experiment("different", log_level="WARNING") as experiment:
        experiment.add([run.Script("main.sh")] * 3, executors, name="job")
        experiment.run(check=True)
    texts = [log(experiment, "job", member).splitlines() for member in range(3)]
    assert [text[0] for text in texts] == ["first", "sub", "first"]
    assert texts[2][1] == str(code)
    assert len(experiment._session.definition.bundles) == 2


def test_builtins_functions_by_value_and_what_arguments_name_are_looked_at(code):
    def local(*values):
        print(values)

    with run.Experiment("looked", log_level="WARNING") as experiment:
        executor = run.LocalExecutor(packager=Folder())
        experiment.add(run.Partial(print, len, [run.State.FAILED], {"a": os.getcwd}), executor, name="named")
        experiment.add(run.Partial(local, 1), executor, name="sent")
        experiment.run(check=True)
        assert set(states(experiment)) == {"named", "sent"}


@attrs.define(kw_only=True)
class Given(run.Packager):
    """Packs one file with another text than lies there."""

    base: str

    def collect(self, cwd: str) -> run.Contents:
        return run.Contents([run.PackagedFile("gone_module.py", content=b"x = 1")], [("", self.base)])


def test_a_module_whose_text_cannot_be_read_is_no_proof_that_it_is_the_same(tmp_path, monkeypatch):
    import importlib

    (tmp_path / "gone_module.py").write_text("def show(): pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    module_ = importlib.import_module("gone_module")
    for gone in (False, True):
        if gone:
            (tmp_path / "gone_module.py").unlink()
        with run.Experiment("gone") as experiment, pytest.raises(run.UsageError, match="another version"):
            experiment.add(run.Partial(module_.show), run.LocalExecutor(packager=Given(base=str(tmp_path))))
