# The shim: claims one start, runs one program, writes one outcome. POSIX sh; starts no process but the program.
# Its $0 is its own path, also where it is sourced: what it reads stands beside it.
# Its own variables begin with NEMORUN_, which no user's may: the program sees the environment as it was given.
# Arguments: BASE SUFFIX CWD STDERR FORWARD PLACE PROGRAM [ARGUMENT...]
#   BASE     path of <attempt>.<incarnation>.<member> in the job's folder; SUFFIX is '' for rank 0, .r for rank r
#   STDERR   'apart' writes the program's standard error to .err, anything else joins it to .out
#   FORWARD  'forward' passes noted signals on to the program (in containers, where PID 1 alone gets them)
#   PLACE    'host=... boot=...' where the submitter knows them, '-' to look them up here
# A submitter that knows the place and lets nothing be forwarded is the shim's parent, and has seen to all that
# elsewhere.sh does; text that is not read costs nothing.
NEMORUN_base=$1 NEMORUN_suffix=$2 NEMORUN_cwd=$3 NEMORUN_stderr=$4 NEMORUN_forward=$5 NEMORUN_place=$6
shift 6

NEMORUN_noted= NEMORUN_program= NEMORUN_waits=0
# Nothing but assignments: a signal that interrupts a trap's own conditions changes their result (dash, busybox).
trap 'NEMORUN_noted=$NEMORUN_noted,TERM' TERM
trap 'NEMORUN_noted=$NEMORUN_noted,HUP' HUP
trap 'NEMORUN_noted=$NEMORUN_noted,USR1' USR1
trap 'NEMORUN_noted=$NEMORUN_noted,USR2' USR2

uptime() { [ -r /proc/uptime ] && read -r NEMORUN_now NEMORUN_idle </proc/uptime || NEMORUN_now=unknown; }

NEMORUN_outcome="$NEMORUN_base.outcome$NEMORUN_suffix"
if [ "$NEMORUN_forward,${NEMORUN_place%%=*}" != no,host ]; then
    . "${0%/*}/elsewhere.sh" || exit 125
fi

# The claim is the creation of the start record: exactly one of any number of racing shims makes it. Its text may be
# missing on a full disk, and the program runs all the same.
NEMORUN_claimed=
uptime
set -C
{
    NEMORUN_claimed=1
    printf 'nemorun-start 1 pid=%s uptime=%s %s end\n' "$$" "$NEMORUN_now" "$NEMORUN_place"
} 2>/dev/null >"$NEMORUN_base.start$NEMORUN_suffix"
set +C
[ -n "$NEMORUN_claimed" ] || exit 125

if [ "$NEMORUN_stderr" = apart ]; then
    { cd "$NEMORUN_cwd" && exec "$@" || exit 126; } \
        </dev/null >"$NEMORUN_base.out$NEMORUN_suffix" 2>"$NEMORUN_base.err$NEMORUN_suffix" &
else
    { cd "$NEMORUN_cwd" && exec "$@" || exit 126; } </dev/null >"$NEMORUN_base.out$NEMORUN_suffix" 2>&1 &
fi
NEMORUN_program=$!

# A wait that a signal interrupts says 128 + signal. It is repeated while the program is there, and the last one, with
# the signals ignored, cannot be interrupted.
wait "$NEMORUN_program"
NEMORUN_code=$?
if [ -n "$NEMORUN_noted" ]; then
    while [ "$NEMORUN_waits" -lt 1000 ] && kill -0 "$NEMORUN_program" 2>/dev/null; do
        wait "$NEMORUN_program"
        NEMORUN_waits=$((NEMORUN_waits + 1))
    done
    trap '' TERM HUP USR1 USR2
    wait "$NEMORUN_program"
    wait "$NEMORUN_program"
    NEMORUN_code=$?
fi
case $NEMORUN_code in -*) NEMORUN_code=unknown ;; esac

NEMORUN_signals=
IFS=,
for NEMORUN_name in ${NEMORUN_noted#,}; do
    case ",$NEMORUN_signals," in *",$NEMORUN_name,"*) ;; *) NEMORUN_signals="${NEMORUN_signals:+$NEMORUN_signals,}$NEMORUN_name" ;; esac
done
unset IFS
uptime
printf 'nemorun-outcome 1 code=%s signals=%s uptime=%s end\n' \
    "$NEMORUN_code" "${NEMORUN_signals:-none}" "$NEMORUN_now" 1<>"$NEMORUN_outcome"
[ "$NEMORUN_code" = unknown ] && exit 125
exit "$NEMORUN_code"
