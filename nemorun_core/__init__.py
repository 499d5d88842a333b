"""nemorun: define tasks, group them into an experiment, run it anywhere, and know the truth about what runs.

Use it as `import nemorun_core as run`. Every name is loaded when it is first used, the core's own and those of
installed plugins (`run.LocalExecutor`); importing this module loads nothing else.
"""

# The one table of public names. Type checkers read the block below it instead; a test compares them.
_NAMES = {
    "Accepted": "contracts.observation",
    "Answer": "contracts.observation",
    "Backend": "contracts.backend",
    "Capabilities": "contracts.capabilities",
    "Command": "model.task",
    "Condition": "model.state",
    "Config": "model.buildable",
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
    "Member": "contracts.backend",
    "MemberObservation": "contracts.observation",
    "NemorunError": "errors",
    "Observation": "contracts.observation",
    "Outcome": "model.records",
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
    "StoreError": "errors",
    "Submission": "contracts.backend",
    "Task": "model.task",
    "TransientError": "errors",
    "UNKNOWN": "contracts.observation",
    "UsageError": "errors",
    "after_any": "model.definition",
    "after_failure": "model.definition",
    "base_path": "contracts.witness",
    "boot_id": "contracts.host",
    "diff": "model.show",
    "ended_member": "contracts.witness",
    "hookimpl": "hookspecs",
    "hostname": "contracts.host",
    "iso_time": "contracts.host",
    "pad_outcome": "contracts.witness",
    "process_started": "contracts.host",
    "rank_suffix": "contracts.witness",
    "read_rank": "contracts.witness",
    "run": "experiment",
    "shim_argv": "contracts.witness",
    "slug": "model.key",
}

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    PLACEHOLDER = 0
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
