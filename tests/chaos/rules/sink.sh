# The shell task of the kill run: one appended line at the start and one at the end.
# What it prints last is its result. No quoting: rule and key are made of letters, digits, "-" and "/".
write() {
    at=$(date +%s.%N) # killed in its place, it says nothing
    printf '{"rule": "%s", "key": "%s", "run": "%s", "task": "%s", "attempt": %s, "idempotency": "%s", "phase": "%s", "at": %s, "process": %s}\n' \
        "$2" "$3" "$EVENTFLOW_RUN_ID" "$EVENTFLOW_TASK" "$EVENTFLOW_ATTEMPT" "$EVENTFLOW_IDEMPOTENCY_KEY" "$1" \
        "${at:-0}" "$PPID" >>"$CHAOS_SINK"
}
write start "$1" "$2"
write end "$1" "$2"
printf '{"attempt": %s}\n' "$EVENTFLOW_ATTEMPT"
