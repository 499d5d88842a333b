# The shim: claims one start, runs one program, writes one outcome. POSIX sh; starts no process but the program.
# Its own variables begin with NEMORUN_, which no user's may: the program sees the environment as it was given.
# Arguments: BASE SUFFIX CWD STDERR FORWARD PLACE PROGRAM [ARGUMENT...]
#   BASE     path of <attempt>.<incarnation>.<member> in the job's folder; SUFFIX is '' for rank 0, .r for rank r
#   STDERR   'apart' writes the program's standard error to .err, anything else joins it to .out
#   FORWARD  'forward' passes noted signals on to the program (in containers, where PID 1 alone gets them)
#   PLACE    'host=... boot=...' where the submitter knows them, '-' to look them up here
NEMORUN_base=$1 NEMORUN_suffix=$2 NEMORUN_cwd=$3 NEMORUN_stderr=$4 NEMORUN_forward=$5 NEMORUN_place=$6
shift 6

NEMORUN_noted= NEMORUN_program= NEMORUN_waits=0
# Nothing but assignments: a signal that interrupts a trap's own conditions changes their result (dash, busybox).
trap 'NEMORUN_noted=$NEMORUN_noted,TERM' TERM
trap 'NEMORUN_noted=$NEMORUN_noted,HUP' HUP
trap 'NEMORUN_noted=$NEMORUN_noted,USR1' USR1
trap 'NEMORUN_noted=$NEMORUN_noted,USR2' USR2
if [ "$NEMORUN_forward" = forward ]; then
    trap 'NEMORUN_noted=$NEMORUN_noted,TERM; kill -s TERM "$!" 2>/dev/null' TERM
    trap 'NEMORUN_noted=$NEMORUN_noted,HUP; kill -s HUP "$!" 2>/dev/null' HUP
    trap 'NEMORUN_noted=$NEMORUN_noted,USR1; kill -s USR1 "$!" 2>/dev/null' USR1
    trap 'NEMORUN_noted=$NEMORUN_noted,USR2; kill -s USR2 "$!" 2>/dev/null' USR2
fi

uptime() { { read -r NEMORUN_now NEMORUN_idle </proc/uptime; } 2>/dev/null || NEMORUN_now=unknown; }

if [ "$NEMORUN_place" = - ]; then
    { read -r NEMORUN_host </proc/sys/kernel/hostname; } 2>/dev/null || NEMORUN_host=unknown
    { read -r NEMORUN_boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || NEMORUN_boot=unknown
    NEMORUN_place="host=$NEMORUN_host boot=$NEMORUN_boot"
fi

# The first incarnation's outcome file was padded by the submitter; a scheduler's restart pads its own, or runs nothing.
NEMORUN_outcome="$NEMORUN_base.outcome$NEMORUN_suffix"
if ! [ -s "$NEMORUN_outcome" ]; then
    NEMORUN_padding='                                                                '
    NEMORUN_padding="$NEMORUN_padding$NEMORUN_padding$NEMORUN_padding$NEMORUN_padding"
    { printf '%s\n' "$NEMORUN_padding" || exit 125; } >>"$NEMORUN_outcome" || exit 125
fi

# Edges that a scheduler kept are checked again before anything is claimed.
if [ -e "${NEMORUN_base%.*.*}.after" ]; then
    . "${0%/*}/edges.sh"
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
