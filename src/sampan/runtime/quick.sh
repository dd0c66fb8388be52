# The short way of the small verbs: start, state, kill and delete of a container whose `quick` file
# says all that they need (runtime/shortcut.py writes it). An interpreter costs more than everything
# that they do, and the launcher is a shell already. The launcher sources this file: it either does
# the whole thing and exits, or returns having done nothing, and the interpreter does what there is
# to do and finds the words. So nothing here reports an error, and whatever is not plain returns.
#
# quick: PID, START TIME, "plain", "hooks", "mounts" (among the caller's) or "scope" (of systemd), "own" or "shared" pid namespace, freezer file or "-";
# the directories of the cgroup, each on a line; an empty line; the answer of `state`.

sampan_quick() {
  root=/run/sampan-oci
  while :; do
    case ${1-} in
      --root | --log) [ $# -ge 2 ] || return; [ "$1" = --log ] || root=$2; shift 2 ;;
      --root=*) root=${1#*=}; shift ;;
      --log=* | --log-format=json | --log-format=text) shift ;;
      --log-format) case ${2-} in json | text) shift 2 ;; *) return ;; esac ;;
      *) break ;;
    esac
  done
  verb=${1-}
  [ "$verb" = delete ] && case ${2-} in -f | --force) shift ;; esac
  id=${2-} signal=${3-TERM}
  case $verb:$# in start:2 | state:2 | delete:2 | kill:2 | kill:3) ;; *) return ;; esac
  case $id in '' | . | .. | *[!A-Za-z0-9_+.-]* | -*) return ;; esac
  directory=$root/$id
  [ -r "$directory/quick" ] || return
  { IFS=' ' read -r pid started hooks pids freezer; } <"$directory/quick" || return
  sampan_status || return
  "sampan_$verb"
}

# Sets `status`; fails where that is not plain to see.
sampan_status() {
  line=
  [ -r "/proc/$pid/stat" ] && { IFS= read -r line <"/proc/$pid/stat"; } 2>/dev/null
  if [ -z "$line" ]; then
    [ ! -e "/proc/$pid" ] || return 1
    status=stopped
    return
  fi
  case $line in *') '*) ;; *) return 1 ;; esac # a name with a newline in it
  set -- ${line##*') '}
  case $1:${20-} in
    [ZX]:"$started") status=stopped; return ;;
    ?:"$started") ;;
    ?:*[!0-9]* | ?:) return 1 ;;
    *) status=stopped; return ;; # the number belongs to another process by now
  esac
  status=running
  if [ -p "$directory/exec.fifo" ] && [ ! -e "$directory/started" ]; then
    status=created
  elif [ "$freezer" != - ]; then
    { IFS= read -r line <"$freezer"; } 2>/dev/null || return 1
    case $line in THAWED | 0) ;; *) status=paused ;; esac
  fi
}

# Opened for both, a gate without a reader does not hold us up.
sampan_start() {
  case $status:$hooks in created:plain | created:scope) ;; *) return ;; esac
  printf 1 1<>"$directory/exec.fifo" || return
  : >"$directory/started"
  exit 0
}

sampan_state() {
  text= is_answer=
  while IFS= read -r line; do
    case $is_answer:$line in
      :) is_answer=yes ;;
      :*) ;;
      'yes:  "status": '*) text="$text  \"status\": \"$status\",
" ;;
      'yes:  "pid": '*) [ $status = stopped ] && line='  "pid": 0,'
        text="$text$line
" ;;
      *) text="$text$line
" ;;
    esac
  done <"$directory/quick"
  printf %s "$text" && exit 0
}

# A frozen process cannot even die, on version 1, so only one that runs is ended here.
sampan_kill() {
  case $status:$pids in running:own | created:own) ;; *) return ;; esac
  signal=${signal#SIG}
  case $signal in
    9) signal=KILL ;;
    15) signal=TERM ;;
    HUP | INT | QUIT | KILL | USR1 | USR2 | TERM) ;;
    *) return ;;
  esac
  kill -s "$signal" "$pid" 2>/dev/null && exit 0
}

# The cgroup goes only when nothing is in it; else the interpreter has to end it.
sampan_delete() {
  [ $status:$hooks = stopped:plain ] || return
  set --
  { IFS= read -r line
    while IFS= read -r line && [ -n "$line" ]; do set -- "$@" "$line"; done
  } <"$directory/quick"
  [ $# -eq 0 ] || rmdir -- "$@" 2>/dev/null || return
  exec rm -rf -- "$directory"
}

sampan_quick "$@"
