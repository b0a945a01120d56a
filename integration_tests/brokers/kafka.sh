#!/usr/bin/env bash
# Runs a command while a real Apache Kafka broker runs on loopback, with FLAGR_TEST_KAFKA set to its address:
#
#   integration_tests/brokers/kafka.sh go test ./pkg/recorder/kafka
#
# FLAGR_TEST_KAFKA_CONTROL is a command that takes what to do with the broker:
#
#   bounce   kill it without a warning, and start it again on its data
#   replace  kill it, and start a new one without data, of another cluster, under the same address
#   freeze   stop its process where it is, until thaw
#   thaw     let it go on
#
# Needs Java 17 and Maven, which downloads the broker once into FLAGR_TEST_CACHE; as root it installs them with apt. Data is
# in a temporary folder.
set -euo pipefail

version=${FLAGR_TEST_KAFKA_VERSION:-4.1.0}
cache=${FLAGR_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/flagr-test}
libs=$cache/kafka-$version

install() {
	[ -e "$libs/.complete" ] && return
	if ! command -v java >/dev/null || ! command -v mvn >/dev/null; then
		if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
			echo "kafka.sh: there is no java or no mvn: install a Java 17 runtime and Maven" >&2
			exit 1
		fi
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless maven) >&2
	fi
	mkdir -p "$libs"
	cat >"$libs/pom.xml" <<-XML
		<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
		<groupId>flagr.test</groupId><artifactId>kafka</artifactId><version>1</version>
		<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency></dependencies></project>
	XML
	(cd "$libs" && mvn -q -B dependency:copy-dependencies -DoutputDirectory="$libs" >&2)
	touch "$libs/.complete"
}

run() { java -Xmx512m -Dlog4j2.level=WARN -cp "$libs/*" "$@"; }

# begin starts the broker of the folder $1 and waits until it listens.
begin() {
	java -Xmx512m -cp "$libs/*" kafka.Kafka "$1/server.properties" >>"$1/log" 2>&1 &
	echo $! >"$1/pid"
	disown # a killed broker is no news
	local port
	port=$(cat "$1/port")
	for _ in $(seq 1800); do
		if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
		kill -0 "$(cat "$1/pid")" 2>/dev/null || { tail -n 40 "$1/log" >&2; exit 1; }
		sleep 0.1
	done
	tail -n 40 "$1/log" >&2
	exit 1
}

kill_broker() {
	kill -9 "$(cat "$1/pid")"
	while kill -0 "$(cat "$1/pid")" 2>/dev/null; do sleep 0.1; done
}

format() {
	run kafka.tools.StorageTool format -t "$(run kafka.tools.StorageTool random-uuid 2>/dev/null)" -c "$1/server.properties" >"$1/log" 2>&1 ||
		{ cat "$1/log" >&2; exit 1; }
}

if [ "${1:-}" = control ]; then # with the folder and what to do; only with this script's own processes
	case $3 in
	bounce) kill_broker "$2" && begin "$2" ;;
	replace) kill_broker "$2" && rm -rf "$2/data" && format "$2" && begin "$2" ;;
	freeze) kill -STOP "$(cat "$2/pid")" ;;
	thaw) kill -CONT "$(cat "$2/pid")" ;;
	*) echo "kafka.sh: control: $3 is unknown; want bounce, replace, freeze or thaw" >&2 && exit 1 ;;
	esac
	exit
fi

install
dir=$(mktemp -d)
trap 'kill -9 "$(cat "$dir/pid")" 2>/dev/null || true; rm -rf "$dir"' EXIT
# Below the ports that systems give out by themselves.
free_port() {
	while :; do
		local port=$((10000 + RANDOM % 20000))
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
	done
}
port=$(free_port)
controller=$(free_port)
echo "$port" >"$dir/port"
cat >"$dir/server.properties" <<-PROPERTIES
	process.roles=broker,controller
	node.id=1
	controller.quorum.voters=1@127.0.0.1:$controller
	listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
	advertised.listeners=PLAINTEXT://127.0.0.1:$port
	controller.listener.names=CONTROLLER
	log.dirs=$dir/data
	num.partitions=3
	offsets.topic.replication.factor=1
	transaction.state.log.replication.factor=1
	transaction.state.log.min.isr=1
	group.initial.rebalance.delay.ms=0
	auto.create.topics.enable=true
PROPERTIES
format "$dir"
begin "$dir"
export FLAGR_TEST_KAFKA=127.0.0.1:$port
export FLAGR_TEST_KAFKA_CONTROL="$(cd "$(dirname "$0")" && pwd)/kafka.sh control $dir"
"$@"
