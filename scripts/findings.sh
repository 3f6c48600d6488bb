#!/usr/bin/env bash
# Runs each finding and prints a line for it. Exits with 1 if one of them has changed.
cd "$(dirname "$0")/../findings" || exit 1
changed=0
for finding in *.sh; do
  [ "$finding" = common.sh ] && continue
  if output=$("./$finding" 2>&1); then
    echo "ok       $finding"
  elif [ $? = 2 ]; then
    echo "not run  $finding: $(tail -n 1 <<<"$output")"
  else
    echo "changed  $finding"
    sed 's/^/    /' <<<"$output"
    changed=1
  fi
done
exit "$changed"
