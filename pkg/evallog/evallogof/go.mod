module github.com/flagr-datar/flagr-datar/pkg/evallog/evallogof

go 1.26.0

require (
	github.com/flagr-datar/flagr-datar/pkg/datar v0.0.0
	github.com/flagr-datar/flagr-datar/pkg/evallog v0.0.0
	github.com/google/go-cmp v0.7.0
	github.com/open-feature/go-sdk v1.20.0
)

require (
	go.uber.org/mock v0.6.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/flagr-datar/flagr-datar/pkg/evallog => ..

replace github.com/flagr-datar/flagr-datar/pkg/datar => ../../datar
