#!/bin/bash
# Schedules the whole testbed: run_cluster.sh for each of ten tasks of dm_control.
#     slurm/run_all.sh [CONFIG] [OPTIONS OF sactory submit]
# Hyper-parameters stand in run_cluster.sh. Goes on after a task that fails, and ends with 1 then.
set -u

here=$(dirname "${BASH_SOURCE[0]}")
status=0
while read -r domain task; do
    "$here/run_cluster.sh" "$domain" "$task" "$@" </dev/null || status=1
done <<'TASKS'
cartpole swingup
reacher easy
cheetah run
finger spin
ball_in_cup catch
walker walk
walker stand
walker run
hopper stand
hopper hop
TASKS
exit "$status"
