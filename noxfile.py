"""The menu, one session per intent: `nox` runs the default ones, `nox -l` lists all, `nox -s lint types` picks.

Each docstring ends with the session's budget on two cores; the default ones together stay under 45 minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"  # a Python that is not there is skipped, and an error where CI is set

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml("pyproject.toml")
PLUGINS = sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))
EDITABLE = ["-r", "requirements-dev.txt"]
# As many as CI has cores; on more, what waits for the clock gains nothing. Whoever has done its part takes of the
# other's, since some proofs take minutes.
PARALLEL = ["--numprocesses", "2", "--dist", "worksteal"]


def group(*names: str) -> tuple[str, ...]:
    """Return the requirements of dependency groups of pyproject.toml."""
    return nox.project.dependency_groups(PYPROJECT, *names)


@nox.session(python=["3.10", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run all tests, among them every code block of the documentation; `wheels` does it for 3.11. 3 minutes each."""
    session.install(*EDITABLE, *group("test"))
    session.run("pytest", *PARALLEL, *session.posargs)


@nox.session(python="3.12")
def proofs(session: nox.Session) -> None:
    """Run the proofs: the kit's liars, crash at every step, drawn histories, real kills. 6 minutes."""
    session.install(*EDITABLE, *group("test"))
    # The same histories each time, so that a change is what differs; `nightly` draws others.
    seed = os.environ.get("PROOF_SEED", "1")
    proofs = ["-m", "proof and not nightly", "--timeout", "1200"]
    session.run("pytest", *PARALLEL, *proofs, *session.posargs, env={"PROOF_SEED": seed})


@nox.session(python="3.12")
def docker(session: nox.Session) -> None:
    """Run DockerExecutor on a real engine, which `eval "$(tests/clusters/docker/up)"` starts. 5 minutes."""
    session.install(*EDITABLE, *group("test"))
    session.run("pytest", *PARALLEL, "-m", "docker and not nightly", "plugins/docker", *session.posargs)


@nox.session(python="3.12")
def slurm(session: nox.Session) -> None:
    """Run SlurmExecutor on a real cluster of virtual nodes, which `tests/clusters/slurm/up` starts. 6 minutes."""
    session.install(*EDITABLE, *group("test"))
    tests = ["plugins/slurm", "tests/docs/test_slurm_page.py"]
    # More than there are cores: they wait for Slurm most of the time.
    session.run("pytest", "--numprocesses", "5", "-m", "slurm and not nightly", *tests, *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and floors; `nox -s lint -- --fix` mends what it can. 1 minute."""
    session.install(*group("lint"))
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []))
    session.run("ruff", "format", *([] if fix else ["--check"]))
    sources = os.pathsep.join([str(ROOT), *(str(plugin / "src") for plugin in PLUGINS)])
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": sources})


@nox.session
def types(session: nox.Session) -> None:
    """Check types: mypy on everything, pyright's rules on the public names. 3 minutes."""
    session.install(*EDITABLE, *group("test", "types"), f"nox{nox.needs_version}")
    session.run("mypy", *session.posargs)
    # Named, since it would rather take the .venv of the checkout.
    session.run("basedpyright", "--warnings", "--pythonpath", str(Path(session.bin, "python")))


@nox.session(python="3.11")
def wheels(session: nox.Session) -> None:
    """Build all wheels and run the tests against them, in a new environment outside the checkout. 4 minutes."""
    session.install(*group("build"))
    with tempfile.TemporaryDirectory(prefix="nemorun-wheels-") as name:
        outside = Path(name)
        for folder in [ROOT, *PLUGINS]:
            with session.chdir(folder):
                session.run("hatchling", "build", "-t", "wheel", "-d", str(outside / "dist"), silent=True)
        session.run("python", "-m", "venv", str(outside / "venv"))
        python = str(outside / "venv" / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        copy_tests(outside)
        with session.chdir(outside):
            built = sorted(map(str, outside.glob("dist/*.whl")))
            session.run(*pip, *built, external=True)
            # Before the test tools come, which could hide a dependency that is not declared.
            every_name = "import nemorun_core as run; [getattr(run, name) for name in dir(run)]"
            session.run(python, "-W", "error", "-c", every_name, external=True)
            session.run(str(outside / "venv" / "bin" / "nemorun"), "--help", external=True, silent=True)
            session.run(*pip, *group("test"), external=True)
            environment = {"BUILT_WHEELS": str(outside / "dist")}
            session.run(
                python,
                "-m",
                "pytest",
                *PARALLEL,
                "-m",
                "not nightly and not proof and not torch and not docker and not slurm",
                *session.posargs,
                external=True,
                env=environment,
            )
        with tempfile.TemporaryDirectory(prefix="nemorun-third-party-") as elsewhere:  # with nothing of ours above it
            try_third_party(session, outside / "dist", Path(elsewhere))


def try_third_party(session: nox.Session, wheels: Path, folder: Path) -> None:
    """Test the example of a third party's backend as its author would: with the core and the kit alone. 5 minutes."""
    spool = ROOT / "docs" / "examples" / "spool"
    with session.chdir(spool):
        session.run("hatchling", "build", "-t", "wheel", "-d", str(folder / "dist"), silent=True)
    session.run("python", "-m", "venv", str(folder / "venv"))
    python = str(folder / "venv" / "bin" / "python")
    built = [*wheels.glob("nemorun_core-*.whl"), *wheels.glob("nemorun_devkit-*.whl"), *folder.glob("dist/*.whl")]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    session.run(*pip, *map(str, built), external=True)
    shutil.copytree(spool / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    with session.chdir(folder):
        session.run(python, "-m", "pytest", "-m", "not nightly", "tests", external=True)


def copy_tests(to: Path) -> None:
    """Copy the tests without the packages; what checks the checkout itself stays behind."""
    ignore = shutil.ignore_patterns("__pycache__", "repository", "docs", "types", "bench")
    for folder in [ROOT, *PLUGINS]:
        shutil.copytree(folder / "tests", to / folder.relative_to(ROOT) / "tests", ignore=ignore)
    for file in ["conftest.py", "pyproject.toml"]:
        shutil.copy(ROOT / file, to)


@nox.session(default=False, python="3.12")
def coverage(session: nox.Session) -> None:
    """Run tests and proofs, and fail for a line of the core, in engine and store a branch, that none reached. 15
    minutes."""
    session.install(*EDITABLE, *group("test", "coverage"))
    session.run("coverage", "erase")
    chosen = ["-m", "not nightly and not torch and not wheels and not docker and not slurm", "--timeout", "1200"]
    environment = {"COVERAGE_ROOT": str(ROOT), "COVERAGE_FILE": str(ROOT / ".coverage"), "PROOF_HISTORIES": "200"}
    session.run("coverage", "run", "-m", "pytest", *PARALLEL, *chosen, *session.posargs, env=environment)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", success_codes=[0, 2])
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "coverage.json")
        session.run("coverage", "json", "--quiet", "-o", str(report))
        files = json.loads(report.read_text())["files"]
    missed = {name: file["missing_lines"] for name, file in files.items() if name.startswith("nemorun_core/")}
    if missed := {name: lines for name, lines in missed.items() if lines}:
        session.error(f"lines that no test reaches: {missed}")
    branches = "nemorun_core/engine/*,nemorun_core/store/*"
    session.run("coverage", "report", "--include", branches, "--fail-under", "100", silent=True)


@nox.session(default=False, python="3.11")
def torchrun(session: nox.Session) -> None:
    """Run jobs under the torchrun of a CPU build of PyTorch. 5 minutes, most of it the installation."""
    # By pip: uv would take a build for GPUs, of several GB.
    session.run("python", "-m", "ensurepip", "--upgrade", silent=True)
    session.run("python", "-m", "pip", "install", "--quiet", *EDITABLE, *group("test"), "numpy", "torch==2.13.0")
    session.run("pytest", "-m", "torch", "plugins/torchrun", *session.posargs)


@nox.session(default=False)
def nightly(session: nox.Session) -> None:
    """Run the long tests and long proofs: 100,000 drawn histories, 2,000 kills. 2 hours."""
    session.install(*EDITABLE, *group("test"))
    many = {"PROOF_HISTORIES": "100000", "PROOF_KILLS": "2000", "PROOF_STOPS": "2000"}
    chosen = "(nightly or proof) and not docker and not slurm"
    session.run("pytest", *PARALLEL, "-m", chosen, "--timeout", "14400", *session.posargs, env=many)
    session.run("pytest", "-m", "nightly and (docker or slurm)", "--timeout", "7200", "plugins", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure the figures of docs/benchmarks.md, as ratios to bare processes of the same run. 15 minutes."""
    session.install(*EDITABLE)
    session.run("python", "tests/bench", *session.posargs, env={"PYTHONDONTWRITEBYTECODE": None})
