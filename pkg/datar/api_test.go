package datar_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var updateAPI = flag.Bool("update", false, "write api.txt")

// published are the packages that other programs import, by their folders.
var published = []string{".", "datarhttp", "gormstore", "ingest", "memstore", "storetest"}

// TestExportedNamesChangeKnowingly compares what the packages export with api.txt. Whoever changes it on purpose runs
// the test with -update, and commits the file; docs/adr/0014-stable-packages.md says which changes are allowed.
func TestExportedNamesChangeKnowingly(t *testing.T) {
	t.Parallel()
	var listing strings.Builder
	for _, folder := range published {
		fmt.Fprintf(&listing, "package %s\n\n%s\n", filepath.ToSlash(filepath.Join("pkg/datar", folder)), strings.Join(exported(t, folder), "\n"))
	}
	if *updateAPI {
		if err := os.WriteFile("api.txt", []byte(listing.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile("api.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), listing.String()); diff != "" {
		t.Errorf("the exported names differ from pkg/datar/api.txt; if that is meant: go test ./pkg/datar -run TestExported -update (-want +got):\n%s", diff)
	}
}

// exported lists the declarations of a package that others can use, without comments, in order.
func exported(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var listed []string
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution) // without comments
		if err != nil {
			t.Fatal(err)
		}
		ast.FileExports(file)
		for _, declaration := range file.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil && !ast.IsExported(receiver(d)) {
					continue
				}
				d.Body = nil
			case *ast.GenDecl:
				if d.Tok == token.IMPORT || len(d.Specs) == 0 {
					continue
				}
			}
			var text bytes.Buffer
			if err := format.Node(&text, set, declaration); err != nil {
				t.Fatal(err)
			}
			// Where comments were there are empty lines.
			listed = append(listed, strings.ReplaceAll(text.String(), "\n\n", "\n")+"\n")
		}
	}
	slices.Sort(listed)
	return listed
}

// receiver is the name of the type that a method belongs to.
func receiver(method *ast.FuncDecl) string {
	kind := method.Recv.List[0].Type
	if pointer, ok := kind.(*ast.StarExpr); ok {
		kind = pointer.X
	}
	if ident, ok := kind.(*ast.Ident); ok {
		return ident.Name
	}
	return ""
}
