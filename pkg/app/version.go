package app

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is the version of the server. A test checks that CHANGELOG.md, swagger.yaml and other
// files state the same.
const Version = "0.1.0"

// versionText is the output of --version: the version, the revision if the build recorded one, and
// the platform.
func versionText() string {
	revision := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = ", revision " + s.Value
			}
		}
	}
	return fmt.Sprintf("flagr-server %s%s, %s %s/%s", Version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
