# Read by shim.sh where its submitter is not its parent: in containers, and on the nodes of a scheduler.

if [ "$NEMORUN_forward" = forward ]; then
    trap 'NEMORUN_noted=$NEMORUN_noted,TERM; kill -s TERM "$!" 2>/dev/null' TERM
    trap 'NEMORUN_noted=$NEMORUN_noted,HUP; kill -s HUP "$!" 2>/dev/null' HUP
    trap 'NEMORUN_noted=$NEMORUN_noted,USR1; kill -s USR1 "$!" 2>/dev/null' USR1
    trap 'NEMORUN_noted=$NEMORUN_noted,USR2; kill -s USR2 "$!" 2>/dev/null' USR2
fi

if [ "$NEMORUN_place" = - ]; then
    { read -r NEMORUN_host </proc/sys/kernel/hostname; } 2>/dev/null || NEMORUN_host=unknown
    { read -r NEMORUN_boot </proc/sys/kernel/random/boot_id; } 2>/dev/null || NEMORUN_boot=unknown
    NEMORUN_place="host=$NEMORUN_host boot=$NEMORUN_boot"
fi

# The first incarnation's outcome file was padded by the submitter; a scheduler's restart pads its own, or runs nothing.
if ! [ -s "$NEMORUN_outcome" ]; then
    NEMORUN_padding='                                                                '
    NEMORUN_padding="$NEMORUN_padding$NEMORUN_padding$NEMORUN_padding$NEMORUN_padding"
    { printf '%s\n' "$NEMORUN_padding" || exit 125; } >>"$NEMORUN_outcome" || exit 125
fi

# Edges that a scheduler kept are checked again before anything is claimed.
if [ -e "${NEMORUN_base%.*.*}.after" ]; then
    . "${0%/*}/edges.sh" || exit 125
fi
