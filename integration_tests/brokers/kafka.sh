#!/usr/bin/env bash
# Runs a command while a real Apache Kafka broker runs on loopback, with FLAGR_TEST_KAFKA set to its address:
#
#   integration_tests/brokers/kafka.sh go test ./pkg/recorder/kafka
#
# FLAGR_TEST_KAFKA_NODES=3 starts three brokers, the first of which is also the controller, and sets
# FLAGR_TEST_KAFKA_CLUSTER to their addresses, separated by commas.
#
# FLAGR_TEST_KAFKA_CONTROL is a command with two arguments: an action, and the number of a broker (default 1).
#
#   kill     kill the broker
#   begin    start the broker on its data
#   bounce   kill and begin
#   replace  kill the broker, and start one without data at the same address: the first one in a new
#            cluster, others in the existing one
#   freeze   suspend the process of the broker
#   thaw     resume it
#
# Needs Java 17 and Maven, which downloads the broker once into FLAGR_TEST_CACHE; as root it installs them with apt. Data is
# in a temporary folder.
set -euo pipefail

version=${FLAGR_TEST_KAFKA_VERSION:-4.1.0}
nodes=${FLAGR_TEST_KAFKA_NODES:-1}
heap=512m
if [ "$nodes" -gt 1 ]; then heap=256m; fi
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

run() { java -Xmx256m -Dlog4j2.level=WARN -cp "$libs/*" "$@"; }

# launch starts the broker of the folder $1, and await waits until it listens.
launch() {
	java "-Xmx$heap" -cp "$libs/*" kafka.Kafka "$1/server.properties" >>"$1/log" 2>&1 &
	echo $! >"$1/pid"
	disown # do not report that a broker was killed
}

await() {
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

# format prepares the folder $1 for the cluster with the ID $2.
format() {
	run kafka.tools.StorageTool format -t "$2" -c "$1/server.properties" >"$1/log" 2>&1 || { cat "$1/log" >&2; exit 1; }
}

new_id() { run kafka.tools.StorageTool random-uuid 2>/dev/null; }

if [ "${1:-}" = control ]; then # arguments: the folder, the action and the broker; affects only processes of this script
	node=${4:-1}
	broker=$2/$node
	case $3 in
	kill) kill_broker "$broker" ;;
	begin) launch "$broker" && await "$broker" ;;
	bounce) kill_broker "$broker" && launch "$broker" && await "$broker" ;;
	replace)
		kill_broker "$broker" && rm -rf "$broker/data"
		if [ "$node" = 1 ]; then new_id >"$2/cluster"; fi
		format "$broker" "$(cat "$2/cluster")" && launch "$broker" && await "$broker"
		;;
	freeze) kill -STOP "$(cat "$broker/pid")" ;;
	thaw) kill -CONT "$(cat "$broker/pid")" ;;
	*) echo "kafka.sh: control: $3 is unknown; want kill, begin, bounce, replace, freeze or thaw" >&2 && exit 1 ;;
	esac
	exit
fi

install
dir=$(mktemp -d)
trap 'for pid in "$dir"/*/pid; do kill -9 "$(cat "$pid")" 2>/dev/null || true; done; rm -rf "$dir"' EXIT
# Below the ports that systems assign automatically.
free_port() {
	while :; do
		local port=$((10000 + RANDOM % 20000))
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
	done
}
controller=$(free_port)
new_id >"$dir/cluster"
addresses=
for node in $(seq "$nodes"); do
	broker=$dir/$node
	mkdir "$broker"
	port=$(free_port)
	echo "$port" >"$broker/port"
	addresses=$addresses${addresses:+,}127.0.0.1:$port
	roles=broker listeners=PLAINTEXT://127.0.0.1:$port
	if [ "$node" = 1 ]; then roles=broker,controller listeners=$listeners,CONTROLLER://127.0.0.1:$controller; fi
	cat >"$broker/server.properties" <<-PROPERTIES
		process.roles=$roles
		node.id=$node
		controller.quorum.voters=1@127.0.0.1:$controller
		listeners=$listeners
		advertised.listeners=PLAINTEXT://127.0.0.1:$port
		controller.listener.names=CONTROLLER
		log.dirs=$broker/data
		num.partitions=3
		offsets.topic.replication.factor=1
		transaction.state.log.replication.factor=1
		transaction.state.log.min.isr=1
		group.initial.rebalance.delay.ms=0
		auto.create.topics.enable=true
	PROPERTIES
	format "$broker" "$(cat "$dir/cluster")"
	launch "$broker"
done
for node in $(seq "$nodes"); do await "$dir/$node"; done
export FLAGR_TEST_KAFKA=127.0.0.1:$(cat "$dir/1/port")
if [ "$nodes" -gt 1 ]; then export FLAGR_TEST_KAFKA_CLUSTER=$addresses; fi
export FLAGR_TEST_KAFKA_CONTROL="$(cd "$(dirname "$0")" && pwd)/kafka.sh control $dir"
"$@"
