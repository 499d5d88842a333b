"""nemorun: define tasks, group them into an experiment, run it anywhere, and know the truth about what runs.

Use it as `import nemorun_core as run`. Every name is loaded when it is first used, the core's own and those of
installed plugins (`run.LocalExecutor`); importing this module loads nothing else.
"""

# The one table of public names. Type checkers read the block below it instead; a test compares them.
_NAMES = {
    "Accepted": "contracts.observation",
    "After": "contracts.backend",
    "Answer": "contracts.observation",
    "Backend": "contracts.backend",
    "Bundle": "contracts.backend",
    "Capabilities": "contracts.capabilities",
    "Command": "model.task",
    "Condition": "model.state",
    "Config": "model.buildable",
    "Contents": "contracts.packager",
    "Defect": "errors",
    "Deferred": "contracts.observation",
    "Difference": "model.show",
    "Document": "contracts.backend",
    "Event": "contracts.plugin",
    "Executor": "contracts.executor",
    "Experiment": "experiment",
    "ExperimentFailed": "errors",
    "Handle": "contracts.observation",
    "Key": "model.key",
    "LAWS": "contracts.laws",
    "Launcher": "contracts.launcher",
    "Member": "contracts.backend",
    "MemberObservation": "contracts.observation",
    "NemorunError": "errors",
    "Observation": "contracts.observation",
    "Outcome": "model.records",
    "PackagedFile": "contracts.packager",
    "Packager": "contracts.packager",
    "Partial": "model.buildable",
    "Place": "model.task",
    "Plugin": "contracts.plugin",
    "PreparedJob": "contracts.plugin",
    "Reason": "model.state",
    "ReasonKind": "model.state",
    "Rejected": "contracts.observation",
    "Script": "model.task",
    "Secret": "model.secret",
    "State": "model.state",
    "Stopping": "contracts.stopping",
    "StoreError": "errors",
    "Submission": "contracts.backend",
    "Task": "model.task",
    "TransientError": "errors",
    "UNKNOWN": "contracts.observation",
    "UsageError": "errors",
    "after_any": "model.definition",
    "after_failure": "model.definition",
    "autoconvert": "model.autoconvert",
    "base_path": "contracts.witness",
    "boot_id": "contracts.host",
    "diff": "model.show",
    "edges_text": "contracts.witness",
    "ended_member": "contracts.witness",
    "hookimpl": "hookspecs",
    "hostname": "contracts.host",
    "iso_time": "contracts.host",
    "pad_outcome": "contracts.witness",
    "process_started": "contracts.host",
    "rank_suffix": "contracts.witness",
    "read_outcome": "contracts.witness",
    "read_rank": "contracts.witness",
    "run": "experiment",
    "shim_argv": "contracts.witness",
    "slug": "model.key",
}

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nemorun_docker import DockerExecutor as DockerExecutor
    from nemorun_env import EnvVars as EnvVars
    from nemorun_git import GitArchivePackager as GitArchivePackager
    from nemorun_git import HybridPackager as HybridPackager
    from nemorun_git import PatternPackager as PatternPackager
    from nemorun_local import LocalExecutor as LocalExecutor
    from nemorun_slurm import LocalTunnel as LocalTunnel
    from nemorun_slurm import SlurmExecutor as SlurmExecutor
    from nemorun_slurm import SSHTunnel as SSHTunnel
    from nemorun_torchrun import Torchrun as Torchrun

    from nemorun_core.contracts.backend import After as After
    from nemorun_core.contracts.backend import Backend as Backend
    from nemorun_core.contracts.backend import Bundle as Bundle
    from nemorun_core.contracts.backend import Document as Document
    from nemorun_core.contracts.backend import Member as Member
    from nemorun_core.contracts.backend import Submission as Submission
    from nemorun_core.contracts.capabilities import Capabilities as Capabilities
    from nemorun_core.contracts.executor import Executor as Executor
    from nemorun_core.contracts.host import boot_id as boot_id
    from nemorun_core.contracts.host import hostname as hostname
    from nemorun_core.contracts.host import iso_time as iso_time
    from nemorun_core.contracts.host import process_started as process_started
    from nemorun_core.contracts.launcher import Launcher as Launcher
    from nemorun_core.contracts.laws import LAWS as LAWS
    from nemorun_core.contracts.observation import UNKNOWN as UNKNOWN
    from nemorun_core.contracts.observation import Accepted as Accepted
    from nemorun_core.contracts.observation import Answer as Answer
    from nemorun_core.contracts.observation import Deferred as Deferred
    from nemorun_core.contracts.observation import Handle as Handle
    from nemorun_core.contracts.observation import MemberObservation as MemberObservation
    from nemorun_core.contracts.observation import Observation as Observation
    from nemorun_core.contracts.observation import Rejected as Rejected
    from nemorun_core.contracts.packager import Contents as Contents
    from nemorun_core.contracts.packager import PackagedFile as PackagedFile
    from nemorun_core.contracts.packager import Packager as Packager
    from nemorun_core.contracts.plugin import Event as Event
    from nemorun_core.contracts.plugin import Plugin as Plugin
    from nemorun_core.contracts.plugin import PreparedJob as PreparedJob
    from nemorun_core.contracts.stopping import Stopping as Stopping
    from nemorun_core.contracts.witness import base_path as base_path
    from nemorun_core.contracts.witness import edges_text as edges_text
    from nemorun_core.contracts.witness import ended_member as ended_member
    from nemorun_core.contracts.witness import pad_outcome as pad_outcome
    from nemorun_core.contracts.witness import rank_suffix as rank_suffix
    from nemorun_core.contracts.witness import read_outcome as read_outcome
    from nemorun_core.contracts.witness import read_rank as read_rank
    from nemorun_core.contracts.witness import shim_argv as shim_argv
    from nemorun_core.errors import Defect as Defect
    from nemorun_core.errors import ExperimentFailed as ExperimentFailed
    from nemorun_core.errors import NemorunError as NemorunError
    from nemorun_core.errors import StoreError as StoreError
    from nemorun_core.errors import TransientError as TransientError
    from nemorun_core.errors import UsageError as UsageError
    from nemorun_core.experiment import Experiment as Experiment
    from nemorun_core.experiment import run as run
    from nemorun_core.hookspecs import hookimpl as hookimpl
    from nemorun_core.model.autoconvert import autoconvert as autoconvert
    from nemorun_core.model.buildable import Config as Config
    from nemorun_core.model.buildable import Partial as Partial
    from nemorun_core.model.definition import after_any as after_any
    from nemorun_core.model.definition import after_failure as after_failure
    from nemorun_core.model.key import Key as Key
    from nemorun_core.model.key import slug as slug
    from nemorun_core.model.records import Outcome as Outcome
    from nemorun_core.model.secret import Secret as Secret
    from nemorun_core.model.show import Difference as Difference
    from nemorun_core.model.show import diff as diff
    from nemorun_core.model.state import Condition as Condition
    from nemorun_core.model.state import Reason as Reason
    from nemorun_core.model.state import ReasonKind as ReasonKind
    from nemorun_core.model.state import State as State
    from nemorun_core.model.task import Command as Command
    from nemorun_core.model.task import Place as Place
    from nemorun_core.model.task import Script as Script
    from nemorun_core.model.task import Task as Task
else:

    def __getattr__(name):
        import importlib

        module = _NAMES.get(name)
        if module is not None:
            value = getattr(importlib.import_module(f"nemorun_core.{module}"), name)
            globals()[name] = value
            return value
        if name.startswith("_"):
            raise AttributeError(f"module 'nemorun_core' has no attribute {name!r}")
        from nemorun_core.registry import plugin_attribute

        return plugin_attribute(name)

    def __dir__():
        from nemorun_core.registry import default_registry

        return sorted({*_NAMES, *default_registry().class_names(), "__version__"})
