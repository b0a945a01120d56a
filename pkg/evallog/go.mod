module github.com/flagr-datar/flagr-datar/pkg/evallog

go 1.26.0

require (
	github.com/flagr-datar/flagr-datar/pkg/datar v0.0.0
	github.com/google/go-cmp v0.7.0
)

require golang.org/x/sys v0.49.0 // indirect

replace github.com/flagr-datar/flagr-datar/pkg/datar => ../datar
