#!/usr/bin/env bash
# Runs a command while a cluster of ClickHouse runs on loopback, with FLAGR_TEST_CLICKHOUSE_CLUSTER set to its connection string: two shards
# with two replicas each on ports 18121 to 18124 of 127.0.0.1, and ZooKeeper on port 12181.
#
#   integration_tests/services/clickhousecluster/run.sh go test ./pkg/datar/chstore
#
# FLAGR_TEST_CLICKHOUSE_CONTROL is a command that takes kill or begin, and the number of a server, 1 to 4, or zookeeper.
#
# Servers connect to each other as the user default without a password, which this version needs to forward ALTER TABLE to the leader.
#
# As root it installs clickhouse-server and zookeeper with apt. Data is in a temporary folder: in memory if /dev/shm has room, because thousands of
# small files take most of the time on a disk.
set -euo pipefail

password=flagr-test-password
if ! [ -x /usr/sbin/clickhouse-server ] || ! [ -e /usr/share/java/zookeeper.jar ]; then
	if [ "$(id -u)" != 0 ]; then
		echo "run.sh: install clickhouse-server and zookeeper" >&2
		exit 1
	fi
	(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends clickhouse-server zookeeper) >&2
fi

parent=${TMPDIR:-/tmp}
if [ -w /dev/shm ] && [ "$(df --output=avail -k /dev/shm | tail -1)" -gt 500000 ]; then parent=/dev/shm; fi
dir=$(mktemp -d "$parent/flagr-test-cluster-XXXXXX")

# The cleaner stops the servers when this script ends, also if it and its process group are killed. It notices that the
# pipe of descriptor 9 is closed, which no other process inherits.
exec 9> >(exec setsid bash -c 'trap "" HUP INT TERM; cat
	for file in "$0"/*.pid; do kill -9 "$(cat "$file")" 2>/dev/null; done
	rm -rf "$0"' "$dir")
cleaner=$!
trap 'exec 9>&-; wait $cleaner 2>/dev/null' EXIT

mkdir "$dir/zookeeper"
printf 'dataDir=%s\nclientPortAddress=127.0.0.1\nclientPort=12181\ntickTime=2000\nadmin.enableServer=false\n' "$dir/zookeeper" >"$dir/zookeeper.cfg"
cat >"$dir/control" <<-SH
	#!/usr/bin/env bash
	run() { setsid "\$@" >>"$dir/\$name.log" 2>&1 & echo \$! >"$dir/\$name.pid"; }
	name=\$2
	case \$1-\$name in
	kill-*) kill -9 "\$(cat "$dir/\$name.pid")" ;;
	begin-zookeeper) run java -Dzookeeper.forceSync=no -Xmx128m -cp '/usr/share/java/*' org.apache.zookeeper.server.quorum.QuorumPeerMain "$dir/zookeeper.cfg" ;;
	begin-*) run /usr/sbin/clickhouse-server --config-file="$dir/\$name/config.xml" ;;
	esac
SH
chmod +x "$dir/control"
export FLAGR_TEST_CLICKHOUSE_CONTROL=$dir/control
"$dir/control" begin zookeeper 9>&-
for attempt in $(seq 300); do # servers that start before it serves requests may crash
	(exec 3<>/dev/tcp/127.0.0.1/12181 && printf srvr >&3 && timeout 5 grep -q '^Mode:' <&3) 2>/dev/null && break
	if [ "$attempt" = 300 ]; then
		echo "run.sh: ZooKeeper does not answer; its log:" >&2
		tail -20 "$dir/zookeeper.log" >&2
		exit 1
	fi
	sleep 0.2
done

replica() { echo "<replica><host>127.0.0.1</host><port>1910$1</port><user>flagr</user><password>$password</password></replica>"; }
for n in 1 2 3 4; do
	mkdir "$dir/$n"
	cat >"$dir/$n/users.xml" <<-XML
		<yandex><profiles><default></default></profiles><quotas><default></default></quotas><users>
		  <flagr><password>$password</password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></flagr>
		  <default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default>
		</users></yandex>
	XML
	cat >"$dir/$n/config.xml" <<-XML
		<yandex>
		  <logger><level>warning</level><console>1</console></logger>
		  <listen_host>127.0.0.1</listen_host><http_port>1812$n</http_port><tcp_port>1910$n</tcp_port>
		  <interserver_http_host>127.0.0.1</interserver_http_host><interserver_http_port>1920$n</interserver_http_port>
		  <path>$dir/$n/data/</path><tmp_path>$dir/$n/tmp/</tmp_path><mark_cache_size>67108864</mark_cache_size>
		  <max_concurrent_queries>400</max_concurrent_queries>
		  <users_config>$dir/$n/users.xml</users_config><default_profile>default</default_profile><default_database>default</default_database>
		  <timezone>UTC</timezone>
		  <!-- A server that was killed starts even if most rows of a table, which has very few, are in parts that ZooKeeper does not know. -->
		  <merge_tree><replicated_max_ratio_of_wrong_parts>1</replicated_max_ratio_of_wrong_parts></merge_tree>
		  <zookeeper><node><host>127.0.0.1</host><port>12181</port></node></zookeeper>
		  <distributed_ddl><path>/clickhouse/ddl</path></distributed_ddl>
		  <macros><shard>$(((n + 1) / 2))</shard><replica>$n</replica></macros>
		  <remote_servers><flagr>
		    <shard><internal_replication>true</internal_replication>$(replica 1)$(replica 2)</shard>
		    <shard><internal_replication>true</internal_replication>$(replica 3)$(replica 4)</shard>
		  </flagr></remote_servers>
		</yandex>
	XML
done

for n in 1 2 3 4; do "$dir/control" begin $n 9>&-; done
for n in 1 2 3 4; do
	for attempt in $(seq 300); do
		curl -sf "http://127.0.0.1:1812$n/ping" >/dev/null && break
		if [ "$attempt" = 300 ]; then
			echo "run.sh: server $n does not answer; its log:" >&2
			tail -20 "$dir/$n.log" >&2
			exit 1
		fi
		sleep 0.2
	done
done
export FLAGR_TEST_CLICKHOUSE_CLUSTER="clickhouse://flagr:$password@127.0.0.1:18121,127.0.0.1:18122,127.0.0.1:18123,127.0.0.1:18124/default?cluster=flagr"
"$@" 9>&-
