module github.com/flagr-datar/flagr-datar/pkg/datar

go 1.26.0

require (
	github.com/google/go-cmp v0.7.0
	golang.org/x/sys v0.49.0
)
