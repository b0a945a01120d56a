package forward

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// keys assigns IDs to keys that are the same in every process, at any time, and finds the keys of
// IDs. An ID is computed from the key's hash, and a file next to the journals has the key of each
// ID. The file only grows, by one line for each key that was ever recorded. Processes can share it.
type keys struct {
	path string     // empty means in memory only
	ids  sync.Map   // int64 by string
	keys sync.Map   // string by int64
	file sync.Mutex // protects the file
}

func openKeys(dir, identity string) (*keys, error) {
	k := &keys{}
	if dir == "" {
		return k, nil
	}
	k.path = filepath.Join(dir, "datar-"+identity+".keys")
	k.file.Lock()
	defer k.file.Unlock()
	return k, k.loadLocked()
}

// hash returns an ID of at least 1. With 100,000 keys, the probability that two have the same ID is
// about one in a billion.
func hash(key string) int64 {
	sum := sha256.Sum256([]byte(key))
	return int64(binary.BigEndian.Uint64(sum[:])>>1) | 1
}

// id returns the ID of a key. When it returns, the file has the key.
func (k *keys) id(key string) (int64, error) {
	if id, ok := k.ids.Load(key); ok {
		return id.(int64), nil
	}
	k.file.Lock()
	defer k.file.Unlock()
	if id, ok := k.ids.Load(key); ok {
		return id.(int64), nil
	}
	if k.path != "" {
		if err := appendLine(k.path, strconv.Quote(key)+"\n"); err != nil {
			return 0, fmt.Errorf("keep the key of a flag: %w", err)
		}
	}
	return k.learn(key), nil
}

// key returns the key of an ID. If another process has just recorded it, it is read from the file.
func (k *keys) key(id int64) (string, bool) {
	if key, ok := k.keys.Load(id); ok {
		return key.(string), true
	}
	k.file.Lock()
	defer k.file.Unlock()
	if k.path == "" || k.loadLocked() != nil {
		return "", false
	}
	key, ok := k.keys.Load(id)
	if !ok {
		return "", false
	}
	return key.(string), true
}

// learn stores a key in memory, and returns its ID. The key is stored before the ID, so that the
// key of every known ID can be found.
func (k *keys) learn(key string) int64 {
	id := hash(key)
	k.keys.Store(id, key)
	k.ids.Store(key, id)
	return id
}

// loadLocked reads the file. It skips torn lines, for example after a power failure.
func (k *keys) loadLocked() error {
	file, err := os.Open(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the keys of flags: %w", err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewReader(file)
	for {
		line, err := lines.ReadString('\n')
		if key, unquoteErr := strconv.Unquote(strings.TrimSuffix(line, "\n")); unquoteErr == nil {
			k.learn(key)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the keys of flags: %w", err)
		}
	}
}

// appendLine appends a line to a file with one write, which the kernel does not mix with writes of
// other processes. It first ends a torn line.
func appendLine(path, line string) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = file.WriteString("\n" + line)
	return err
}
