# Read by shim.sh where a scheduler kept edges: it may have forgotten an upstream, or know only its last exit code.
# Where an edge does not hold, nothing runs, and the outcome says "skipped".
# A line of <attempt>.after: condition, MEMBER:SUFFIX of each record, path of the upstream's <attempt>.

# A shared file system may show a record late.
edge_holds() {
    [ "$1" != any ] || return 0
    NEMORUN_looks=0
    while :; do
        NEMORUN_end=success IFS=,
        for NEMORUN_record in $2; do
            NEMORUN_member=${NEMORUN_record%%:*} NEMORUN_rank=${NEMORUN_record#*:} NEMORUN_number=0 NEMORUN_line=
            while [ -e "$3.$((NEMORUN_number + 1)).$NEMORUN_member.start$NEMORUN_rank" ]; do
                NEMORUN_number=$((NEMORUN_number + 1))
            done
            { read -r NEMORUN_line <"$3.$NEMORUN_number.$NEMORUN_member.outcome$NEMORUN_rank"; } 2>/dev/null
            case $NEMORUN_line in
            'nemorun-outcome 1 code=0 signals=none '*' end') ;;
            'nemorun-outcome 1 '*' end') NEMORUN_end=failure ;;
            *) [ "$NEMORUN_end" = failure ] || NEMORUN_end=unknown ;;
            esac
        done
        unset IFS
        [ "$NEMORUN_end" = unknown ] && [ "$NEMORUN_looks" -lt 60 ] || break
        NEMORUN_looks=$((NEMORUN_looks + 1))
        sleep 1
    done
    if [ "$1" = success ]; then [ "$NEMORUN_end" = success ]; else [ "$NEMORUN_end" != success ]; fi
}

while read -r NEMORUN_condition NEMORUN_records NEMORUN_path; do
    edge_holds "$NEMORUN_condition" "$NEMORUN_records" "$NEMORUN_path" && continue
    uptime
    [ -e "$NEMORUN_base.start$NEMORUN_suffix" ] ||
        printf 'nemorun-outcome 1 code=skipped signals=none uptime=%s end\n' "$NEMORUN_now" 1<>"$NEMORUN_outcome"
    exit 125
done <"${NEMORUN_base%.*.*}.after"
