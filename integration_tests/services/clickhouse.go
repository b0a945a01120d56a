package services

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// clickhouse returns the ClickHouse of the distribution, an old version.
func clickhouse() Kind {
	config := func(dir string) string { return filepath.Join(dir, "config.xml") }
	return Kind{
		Name:      "clickhouse",
		Variable:  "FLAGR_TEST_CLICKHOUSE",
		OnRequest: true,
		ping:      pingClickHouse,
		end:       syscall.SIGTERM,
		install: func(ctx context.Context) (string, error) {
			if err := apt(ctx, &aptLock, []string{"clickhouse-server"}, "clickhouse-server"); err != nil {
				return "", err
			}
			return lookPath("clickhouse-server")
		},
		prepare: func(_ context.Context, _, dir string, as account) error {
			for name, content := range map[string]string{
				"users.xml": fmt.Sprintf(clickhouseUsers, password), "config.xml": fmt.Sprintf(clickhouseConfig, dir),
			} {
				file := filepath.Join(dir, name)
				if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
					return err
				}
				if err := as.own(file); err != nil {
					return err
				}
			}
			return nil
		},
		command: func(installed, dir string, port int) []string {
			return []string{installed, "--config-file=" + config(dir), "--", "--http_port=" + strconv.Itoa(port)}
		},
		dsn: func(port int) string {
			return fmt.Sprintf("clickhouse://default:%s@127.0.0.1:%d/default", password, port)
		},
	}
}

const (
	clickhouseConfig = `<yandex>
  <logger><level>warning</level><console>1</console></logger>
  <listen_host>127.0.0.1</listen_host>
  <path>%[1]s/data/</path>
  <tmp_path>%[1]s/tmp/</tmp_path>
  <mark_cache_size>67108864</mark_cache_size>
  <max_concurrent_queries>200</max_concurrent_queries>
  <users_config>%[1]s/users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <timezone>UTC</timezone>
</yandex>
`
	clickhouseUsers = `<yandex>
  <profiles><default></default></profiles>
  <quotas><default></default></quotas>
  <users><default>
    <password>%s</password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
  </default></users>
</yandex>
`
)

//go:embed chdb/server.py
var chdbServer []byte

// chdb returns a current ClickHouse engine in a Python process, behind the part of the HTTP
// interface that the store uses. The engine takes 530 MB, so it is started only on request.
func chdb() Kind {
	const pinned = "26.9.0"
	return Kind{
		Name:      "chdb",
		Variable:  "FLAGR_TEST_CHDB",
		OnRequest: true, anyAccount: true,
		ping: pingClickHouse,
		end:  syscall.SIGTERM,
		install: func(ctx context.Context) (string, error) {
			chdbLock.Lock()
			defer chdbLock.Unlock()
			root, err := cache()
			if err != nil {
				return "", err
			}
			dir := filepath.Join(root, "chdb-"+pinned)
			python := filepath.Join(dir, "bin", "python3")
			if _, err := os.Stat(filepath.Join(dir, "complete")); err == nil {
				return python, nil
			}
			if err := run(ctx, "/", account{}, "python3", "-m", "venv", "--clear", dir); err != nil {
				return "", err
			}
			if err := run(ctx, dir, account{}, python, "-m", "pip", "install", "--quiet", "chdb-core=="+pinned); err != nil {
				return "", err
			}
			return python, os.WriteFile(filepath.Join(dir, "complete"), nil, 0o644)
		},
		prepare: func(_ context.Context, _, dir string, as account) error {
			file := filepath.Join(dir, "server.py")
			if err := os.WriteFile(file, chdbServer, 0o644); err != nil {
				return err
			}
			return as.own(file)
		},
		command: func(installed, dir string, port int) []string {
			return []string{installed, filepath.Join(dir, "server.py"), filepath.Join(dir, "data"), strconv.Itoa(port)}
		},
		dsn: func(port int) string {
			return fmt.Sprintf("clickhouse://default:%s@127.0.0.1:%d/default", password, port)
		},
	}
}

var chdbLock sync.Mutex

// pingClickHouse runs a query.
func pingClickHouse(ctx context.Context, dsn string) error {
	u, err := url.Parse(dsn)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+u.Host+"/?query=SELECT+1", nil)
	if err != nil {
		return err
	}
	secret, _ := u.User.Password()
	request.Header.Set("X-ClickHouse-User", u.User.Username())
	request.Header.Set("X-ClickHouse-Key", secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // a close error does not matter here
	if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d, %w: %s", response.StatusCode, err, text)
	}
	return nil
}
