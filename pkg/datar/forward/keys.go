package forward

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
)

// keys gives keys ids that are the same in every process, today and tomorrow, and finds them again: an id is made of
// the key's hash, and a file beside the journals has the key of each id. The file only grows, by one line for each key
// that was ever recorded. Processes may share it.
type keys struct {
	path string // empty: in memory only

	// known is read without a lock by every evaluation, and replaced under mu.
	known atomic.Pointer[pairs]
	mu    sync.Mutex
}

type pairs struct {
	ids  map[string]int64
	keys map[int64]string
}

func openKeys(dir, identity string) (*keys, error) {
	k := &keys{}
	k.known.Store(&pairs{})
	if dir == "" {
		return k, nil
	}
	k.path = filepath.Join(dir, "datar-"+identity+".keys")
	k.mu.Lock()
	defer k.mu.Unlock()
	return k, k.load()
}

// hash makes an id of at least 1. With 100,000 keys the chance that two have the same is below one in a billion.
func hash(key string) int64 {
	sum := sha256.Sum256([]byte(key))
	return int64(binary.BigEndian.Uint64(sum[:])>>1) | 1
}

// id returns the id of a key. When it returns, the file has the key.
func (k *keys) id(key string) (int64, error) {
	if id, ok := k.known.Load().ids[key]; ok {
		return id, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if id, ok := k.known.Load().ids[key]; ok {
		return id, nil
	}
	id := hash(key)
	if k.path != "" {
		if err := appendLine(k.path, strconv.Quote(key)+"\n"); err != nil {
			return 0, fmt.Errorf("keep the key of a flag: %w", err)
		}
	}
	k.learn(key)
	return id, nil
}

// key returns the key of an id. One that another process has just recorded is found in the file.
func (k *keys) key(id int64) (string, bool) {
	if key, ok := k.known.Load().keys[id]; ok {
		return key, true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == "" || k.load() != nil {
		return "", false
	}
	key, ok := k.known.Load().keys[id]
	return key, ok
}

// learn adds pairs. It runs under mu.
func (k *keys) learn(news ...string) {
	old := k.known.Load()
	next := &pairs{ids: maps.Clone(old.ids), keys: maps.Clone(old.keys)}
	if next.ids == nil {
		next.ids, next.keys = map[string]int64{}, map[int64]string{}
	}
	for _, key := range news {
		id := hash(key)
		next.ids[key], next.keys[id] = id, key
	}
	k.known.Store(next)
}

// load reads the file. Lines that are torn, as after a loss of power, are passed over. It runs under mu.
func (k *keys) load() error {
	file, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the keys of flags: %w", err)
	}
	defer func() { _ = file.Close() }()
	var found []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if key, err := strconv.Unquote(lines.Text()); err == nil {
			found = append(found, key)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the keys of flags: %w", err)
	}
	k.learn(found...)
	return nil
}

// appendLine adds a line to a file, in one write, which the kernel does not mix with those of other processes. A line
// that was torn before it is ended first.
func appendLine(path, line string) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = file.WriteString("\n" + line)
	return err
}
