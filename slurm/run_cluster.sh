#!/bin/bash
# Schedules ten seeds of one task, in runs/DOMAIN_TASK/CONFIG/seed_<i>:
#     slurm/run_cluster.sh DOMAIN TASK [CONFIG] [OPTIONS OF sactory submit]
#     slurm/run_cluster.sh walker walk
#     slurm/run_cluster.sh walker walk sac_small --at_once 4 --time 12:00:00
# The same command again submits what has not finished.
set -eu

usage() { echo "usage: run_cluster.sh DOMAIN TASK [CONFIG] [OPTIONS OF sactory submit]" >&2; exit 2; }
[ $# -ge 2 ] || usage
task=$1_$2
shift 2
config=sac_states
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    config=$1
    shift
fi

# --- hyper-parameters: the only place for all tasks ---
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case $config in
    sac_states) file=$here/configs/sac.gin ;;
    *) file=$here/configs/$config.gin ;;  # one that includes configs/sac.gin and binds what differs
esac
settings=(
    --set "run.max_env_steps = 500_000"
    --set "eval.Evaluator.every_env_steps = 10_000"
)
# ---

sactory=${SACTORY:-sactory}  # another command, such as /path/to/.venv/bin/sactory
exec "$sactory" submit "$file" --tasks "$task" --seeds 1-10 --set "run.name = '$config'" \
    "${settings[@]}" "$@"
