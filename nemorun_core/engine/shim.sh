# The shim: claims one start, runs one program, writes one outcome. POSIX sh; starts no process but the program.
# Arguments: BASE SUFFIX CWD STDERR FORWARD PLACE PROGRAM [ARGUMENT...]
#   BASE     path of <attempt>.<incarnation>.<member> in the job's folder; SUFFIX is '' for rank 0, .r for rank r
#   STDERR   'apart' writes the program's standard error to .err, anything else joins it to .out
#   FORWARD  'forward' passes noted signals on to the program (in containers, where PID 1 alone gets them)
#   PLACE    'host=... boot=...' where the submitter knows them, '-' to look them up here
base=$1 suffix=$2 cwd=$3 stderr=$4 forward=$5 place=$6
shift 6

noted= interruptions=0 program=
note() {
    interruptions=$((interruptions + 1))
    case ",$noted," in *",$1,"*) ;; *) noted="${noted:+$noted,}$1" ;; esac
    if [ "$forward" = forward ] && [ -n "$program" ]; then kill -s "$1" "$program" 2>/dev/null; fi
}
trap 'note TERM' TERM
trap 'note HUP' HUP
trap 'note USR1' USR1
trap 'note USR2' USR2

uptime() { { read -r now idle </proc/uptime; } 2>/dev/null || now=unknown; }

if [ "$place" = - ]; then
    { read -r host </proc/sys/kernel/hostname; } 2>/dev/null || host=unknown
    { read -r boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || boot=unknown
    place="host=$host boot=$boot"
fi

# The first incarnation's outcome file was padded by the submitter; a scheduler's restart pads its own, or runs nothing.
outcome="$base.outcome$suffix"
if ! [ -s "$outcome" ]; then
    padding='                                                                '
    padding="$padding$padding$padding$padding"
    { printf '%s\n' "$padding" || exit 125; } >>"$outcome" || exit 125
fi

# The claim is the creation of the start record: exactly one of any number of racing shims makes it. Its text may be
# missing on a full disk, and the program runs all the same.
claimed=
uptime
set -C
{
    claimed=1
    printf 'nemorun-start 1 pid=%s uptime=%s %s end\n' "$$" "$now" "$place"
} 2>/dev/null >"$base.start$suffix"
set +C
[ -n "$claimed" ] || exit 125

if [ "$stderr" = apart ]; then
    { cd "$cwd" && exec "$@" || exit 126; } </dev/null >"$base.out$suffix" 2>"$base.err$suffix" &
else
    { cd "$cwd" && exec "$@" || exit 126; } </dev/null >"$base.out$suffix" 2>&1 &
fi
program=$!

# A wait that a signal interrupts says 128 + signal; it is believed only when the next one, undisturbed, agrees.
wait "$program"
code=$?
while :; do
    before=$interruptions
    wait "$program"
    again=$?
    if [ "$again" = "$code" ] && [ "$before" = "$interruptions" ]; then break; fi
    code=$again
done
case $code in -*) code=unknown ;; esac

uptime
printf 'nemorun-outcome 1 code=%s signals=%s uptime=%s end\n' "$code" "${noted:-none}" "$now" 1<>"$outcome"
[ "$code" = unknown ] && exit 125
exit "$code"
