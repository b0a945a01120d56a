//go:build !linux

package process

// program is the read-only mappings of the executable, which are released on Linux only.
type program struct{}

func findProgram() (program, error) { return program{}, nil }

func (program) release() {}
