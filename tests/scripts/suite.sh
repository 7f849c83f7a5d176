# What the suites of foreign programs share (tests/clients/run, tests/hostile/run): a session of their own, and how what
# they saw is noted. For `source`; nothing is done by itself.

# What a suite returns, and what it is made of, where it cannot run here.
SKIPPED=77
# How long what was started may take to end once it is told to.
END_TIME_S=10

summary=()
failed=0
skipped=0

# note STATUS WHAT LINE: for the summary.
note() {
  case $1 in
    0) ;;
    "$SKIPPED") skipped=1 ;;
    *) failed=1 ;;
  esac
  summary+=("$(printf '%-30s %s' "$2" "$3")")
}

# Prints the summary, and ends with what it comes to.
conclude() {
  printf '\n'
  printf '%s\n' "${summary[@]}"
  ((failed)) && exit 1
  ((skipped)) && exit "$SKIPPED"
  exit 0
}

# in_session "$@": runs this script once more, in a session of its own, and ends with it. However it ends, and when it
# is interrupted, nothing of that session stays behind: a shell that waits for a program does not hear a signal, and what
# that program started is not its child. Without setsid and pkill it goes on as it is.
in_session() {
  if [[ -n ${SUITE_SESSION:-} ]] || ! command -v setsid pkill pgrep >/dev/null; then
    unset SUITE_SESSION
    return
  fi
  SUITE_SESSION=1 setsid "$0" "$@" &
  session=$!
  trap 'end_session; exit 130' INT TERM HUP
  local status=0
  wait "$session" || status=$?
  end_session
  exit "$status"
}

# Ends what is left of the session: asks first.
end_session() {
  trap '' INT TERM HUP
  local deadline=$((SECONDS + END_TIME_S))
  pkill -TERM -s "$session" || true
  while pgrep -s "$session" >/dev/null; do
    ((SECONDS < deadline)) || { pkill -KILL -s "$session" || true; return; }
    sleep 0.1
  done
}
