#!/bin/sh
# Starts one node of a Ray cluster for Mien and stays in the foreground; end it with Ctrl-C.
#
#   deploy/ray/node.sh head 10.0.0.5                      the first node, and the address of the others' second word
#   deploy/ray/node.sh 10.0.0.5:6379 10.0.0.6 [OPTION…]   any other one; options go to 'ray start'
#
# The token: the same file on every node (~/.ray/auth_token, made once by 'ray get-auth-token --generate'),
# or RAY_AUTH_TOKEN in the environment. Run it from the environment in which 'mien[cluster]' is installed.
set -eu

[ $# -ge 2 ] || { echo "usage: $0 head|HEAD:PORT THIS_ADDRESS [options of 'ray start']" >&2; exit 2; }
head=$1
own=$2
shift 2

export RAY_AUTH_MODE=token          # nobody runs programs here without it
export RAY_USAGE_STATS_ENABLED=0    # nothing is told to anybody outside
export RAY_enable_metrics_collection=0
# A node that has died is noticed after about three seconds instead of fifteen (read by the head alone).
export RAY_health_check_initial_delay_ms=1000
export RAY_health_check_period_ms=500
export RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=3
# Mien is beside this file's directory; its stages are found there whatever directory Ray works in.
root=$(cd "$(dirname "$0")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

# Pictures do not pass through Ray's store: the least that it accepts is enough. What stages say comes another way.
set -- --block --node-ip-address="$own" --object-store-memory=80000000 --include-log-monitor=false "$@"
if [ "$head" = head ]; then
  exec ray start --head --port="${RAY_PORT:-6379}" --include-dashboard=false --no-monitor --disable-usage-stats "$@"
fi
exec ray start --address="$head" "$@"
