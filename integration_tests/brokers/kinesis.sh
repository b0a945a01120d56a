#!/usr/bin/env bash
# Runs a command while two servers that imitate Kinesis run on loopback, with FLAGR_TEST_KINESIS set to their URLs:
#
#   integration_tests/brokers/kinesis.sh go test ./pkg/recorder/kinesis
#
# They are kinesis-local and kinesalite. Needs Node.js and npm, which downloads them once into FLAGR_TEST_CACHE; as root it
# installs Node.js with apt.
set -euo pipefail

cache=${FLAGR_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/flagr-test}/kinesis
if [ ! -e "$cache/.complete" ]; then
	if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
		if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
			echo "kinesis.sh: there is no node or no npm: install Node.js and npm" >&2
			exit 1
		fi
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm) >&2
	fi
	mkdir -p "$cache"
	(cd "$cache" && npm install --silent --no-audit --no-fund --prefix . kinesis-local@0.6.2 kinesalite@3.3.3 >&2)
	touch "$cache/.complete"
fi

# Below the ports that systems assign automatically.
free_port() {
	while :; do
		local port=$((10000 + RANDOM % 20000))
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
	done
}
pids=()
dir=$(mktemp -d)
trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$dir"' EXIT
local_port=$(free_port)
(cd "$cache/node_modules/kinesis-local" && KINESIS_MOCK_PLAIN_PORT=$local_port KINESIS_MOCK_TLS_PORT=$(free_port) LOG_LEVEL=ERROR exec node main.js) >"$dir/local" 2>&1 &
pids+=($!)
lite_port=$(free_port)
# Its own command listens on all addresses.
(cd "$cache" && exec node -e "require('kinesalite')({createStreamMs: 50, deleteStreamMs: 50}).listen($lite_port, '127.0.0.1')") >"$dir/lite" 2>&1 &
pids+=($!)
for port in "$local_port" "$lite_port"; do
	for i in $(seq 300); do
		if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
		[ "$i" -lt 300 ] || { cat "$dir"/l* >&2; exit 1; }
		sleep 0.1
	done
done
export FLAGR_TEST_KINESIS=http://127.0.0.1:$local_port,http://127.0.0.1:$lite_port
"$@"
