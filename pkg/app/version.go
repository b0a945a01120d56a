package app

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is the version of the server. CHANGELOG.md describes it, which a test checks.
const Version = "0.1.0"

// versionText is what --version prints: the version, the revision if the build recorded one, and the platform.
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
