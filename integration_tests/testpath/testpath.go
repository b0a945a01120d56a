// Package testpath finds files of the repository in tests of any package, also with -trimpath.
package testpath

import (
	"os"
	"path/filepath"
)

// InRepository returns the path of a file, given by its path from the repository's root. The root
// is the nearest directory above the working directory that contains swagger_gen and go.mod.
// Without one, the path stays relative.
func InRepository(elements ...string) string {
	relative := filepath.Join(elements...)
	directory, err := os.Getwd()
	if err != nil {
		return relative
	}
	for {
		if exists(filepath.Join(directory, "go.mod")) && exists(filepath.Join(directory, "swagger_gen")) {
			return filepath.Join(directory, relative)
		}
		parent := filepath.Dir(directory)
		if parent == directory {
			return relative
		}
		directory = parent
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
