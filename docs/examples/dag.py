"""Three groups of two scripts: the third starts when the first two have succeeded."""

import nemorun_core as run

inline_script = run.Script(inline="echo Hello from $NEMORUN_JOB, member $NEMORUN_MEMBER")
inline_script_sleep = run.Script(inline="sleep 0.5; echo Awake in $NEMORUN_JOB, member $NEMORUN_MEMBER")

with run.Experiment("dag-experiment", executor="local", log_level="INFO") as exp:
    id1 = exp.add([inline_script, inline_script_sleep], name="task-1")
    id2 = exp.add([inline_script, inline_script_sleep], name="task-2")
    exp.add([inline_script, inline_script_sleep], name="task-3", dependencies=[id1, id2], tail_logs=True)
    exp.run(check=True)
