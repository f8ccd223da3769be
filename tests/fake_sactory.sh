#!/bin/bash
# Stands for `sactory` in jobs whose training is of no interest. Files in the run directory choose
# what its trainer does: `hang` goes on until that file is gone, `fail` fails.
set -eu
verb=$1
shift
while [ $# -gt 0 ]; do
    case $1 in
        --run_dir) run=$2 ;;
        --programs) programs=$2 ;;
    esac
    shift 2
done
if [ "$verb" = run ]; then
    echo '{}' >"$run/result.json"
    exit
fi
[ "$programs" = train ] || exit 0
if [ -e "$run/fail" ]; then
    echo '{"program": "train", "error": "ValueError: told so"}' >"$run/failed.json"
    exit 1
fi
trap 'exit 75' HUP TERM
touch "$run/train.log"
while [ -e "$run/hang" ]; do
    sleep 0.2
done
score=${run##*_}
echo '{"step": 2000, "episode_reward": '"$score"'00.0, "train_step": 1, "incarnation": 1}' \
    >"$run/eval.log"
echo '{"reason": "max_env_steps", "env_steps": 2000, "train_steps": 1}' >"$run/done.json"
