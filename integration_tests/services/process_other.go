//go:build !linux

package services

import (
	"errors"
	"os/exec"
)

func become(*exec.Cmd, account) {}

func launch([]string, string, account) (*process, error) {
	return nil, errors.New("servers are started on Linux only: use those of compose.yaml")
}
