#!/usr/bin/env bash
# Runs a command while Google's Pub/Sub emulator runs on loopback, with FLAGR_TEST_PUBSUB set to its address:
#
#   integration_tests/brokers/pubsub.sh go test ./pkg/recorder/pubsub
#
# The emulator is part of the Google Cloud SDK and needs Java. If it is missing, the command runs
# without the variable, and its test is skipped.
set -euo pipefail

emulator=$(command -v cloud-pubsub-emulator || true)
for sdk in "${CLOUDSDK_ROOT_DIR:-}" /usr/lib/google-cloud-sdk /usr/share/google-cloud-sdk "${HOME:-}/google-cloud-sdk"; do
	[ -n "$emulator" ] || emulator=$(ls "$sdk/platform/pubsub-emulator/bin/cloud-pubsub-emulator" 2>/dev/null || true)
done
if [ -z "$emulator" ] || ! command -v java >/dev/null; then
	echo "pubsub.sh: no emulator: install the Google Cloud SDK with its pubsub-emulator, and Java" >&2
	exec "$@"
fi

free_port() {
	while :; do
		local port=$((10000 + RANDOM % 20000))
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
	done
}
port=$(free_port)
log=$(mktemp)
setsid "$emulator" --host=127.0.0.1 --port="$port" >"$log" 2>&1 & # it starts Java beside itself
group=$!
trap 'kill -- "-$group" 2>/dev/null || true; rm -f "$log"' EXIT
for i in $(seq 600); do
	if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
	[ "$i" -lt 600 ] || { cat "$log" >&2; exit 1; }
	sleep 0.1
done
FLAGR_TEST_PUBSUB=127.0.0.1:$port "$@"
