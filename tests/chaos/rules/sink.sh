# The shell task of the kill run: one appended line at the start and one at the end, flushed to the disk.
# What it prints last is its result. No quoting: rule and key are made of letters, digits, "-" and "/".
write() {
    printf '{"rule": "%s", "key": "%s", "run": "%s", "task": "%s", "attempt": %s, "idempotency": "%s", "phase": "%s"}\n' \
        "$2" "$3" "$EVENTFLOW_RUN_ID" "$EVENTFLOW_TASK" "$EVENTFLOW_ATTEMPT" "$EVENTFLOW_IDEMPOTENCY_KEY" "$1" |
        dd of="$CHAOS_SINK" oflag=append conv=notrunc,fsync bs=4096 status=none
}
write start "$1" "$2"
write end "$1" "$2"
printf '{"attempt": %s}\n' "$EVENTFLOW_ATTEMPT"
