package app_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/constant"
	"go/format"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var updateAPI = flag.Bool("update", false, "write the files api.txt")

const stabilityADR = "docs/adr/0014-stable-packages.md"

// libraries are the folders whose packages other programs import, each with an api.txt, and the
// packages below them that are for our own server, as the ADR says.
var libraries = map[string][]string{
	"pkg/datar":   {"forward", "chstore", "gormstore/testdb"},
	"pkg/evallog": nil,
}

// TestExportedNamesChangeKnowingly compares what the packages export with api.txt. Whoever changes
// it on purpose runs the test with -update, and commits the file; docs/adr/0014-stable-packages.md
// says which changes are allowed.
func TestExportedNamesChangeKnowingly(t *testing.T) {
	t.Parallel()
	for library := range libraries {
		var listing strings.Builder
		for _, folder := range published(t, library) {
			fmt.Fprintf(&listing, "package %s\n\n%s\n", path.Join(library, folder), strings.Join(exported(t, filepath.Join(top, library, folder)), "\n"))
		}
		file := filepath.Join(top, library, "api.txt")
		if *updateAPI {
			if err := os.WriteFile(file, []byte(listing.String()), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(listing.String(), "\n")); diff != "" {
			t.Errorf("the exported names differ from %s/api.txt; if that is meant: go test ./pkg/app -run TestExported -update (-want +got):\n%s", library, diff)
		}
	}
}

// TestEachPackageIsPublishedOrNot keeps the ADR complete.
func TestEachPackageIsPublishedOrNot(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(top, stabilityADR))
	if err != nil {
		t.Fatal(err)
	}
	for library, unpublished := range libraries {
		for _, folder := range append(published(t, library), unpublished...) {
			if name := path.Base(path.Join(library, folder)); !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("%s does not say whether %s is published", stabilityADR, name)
			}
		}
	}
}

// published finds the packages of a library that other programs may import, by their folders below
// it.
func published(t *testing.T, library string) (folders []string) {
	t.Helper()
	root := filepath.Join(top, library)
	err := filepath.WalkDir(root, func(folder string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		below, err := filepath.Rel(root, folder)
		if err != nil {
			return err
		}
		below = filepath.ToSlash(below)
		if entry.Name() == "testdata" || entry.Name() == "internal" || slices.Contains(libraries[library], below) {
			return fs.SkipDir
		}
		if len(goFiles(t, folder)) > 0 {
			folders = append(folders, below)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return folders
}

// goFiles are the files of a package without its tests, for whatever system.
func goFiles(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(files, func(name string) bool { return strings.HasSuffix(name, "_test.go") })
}

// exported lists the declarations of a package that others can use, without comments, in order.
// Constants have their values, because one that is inserted among others may shift those after it.
func exported(t *testing.T, folder string) []string {
	t.Helper()
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range goFiles(t, folder) {
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution) // without comments
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	listed := constants(t, set, files)
	for _, file := range files {
		ast.FileExports(file)
		for _, declaration := range file.Decls {
			switch d := declaration.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil && !ast.IsExported(receiver(d)) {
					continue
				}
				d.Body = nil
			case *ast.GenDecl:
				if d.Tok == token.IMPORT || d.Tok == token.CONST || len(d.Specs) == 0 {
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
	return slices.Compact(listed)
}

// constants lists the exported constants of a package with their types and values.
func constants(t *testing.T, set *token.FileSet, files []*ast.File) (listed []string) {
	t.Helper()
	// What other packages are needed for has no influence on constants: errors are of no interest.
	config := types.Config{Importer: onlyStandard{importer.ForCompiler(set, "source", nil)}, IgnoreFuncBodies: true, Error: func(error) {}}
	checked, _ := config.Check("listed", set, files, nil)
	for _, name := range checked.Scope().Names() {
		c, ok := checked.Scope().Lookup(name).(*types.Const)
		if !ok || !c.Exported() {
			continue
		}
		if c.Val().Kind() == constant.Unknown {
			t.Fatalf("the value of the constant %s is not known", name)
		}
		kind := " " + types.TypeString(c.Type(), func(p *types.Package) string {
			if p == checked {
				return ""
			}
			return p.Name()
		})
		if basic, ok := c.Type().(*types.Basic); ok && basic.Info()&types.IsUntyped != 0 {
			kind = ""
		}
		listed = append(listed, fmt.Sprintf("const %s%s = %s\n", name, kind, c.Val().ExactString()))
	}
	return listed
}

// onlyStandard imports the few packages of the standard library that constants are made of.
type onlyStandard struct{ types.Importer }

func (o onlyStandard) Import(path string) (*types.Package, error) {
	switch path { // a constant of another one would have no value, and fail the test
	case "time":
		return durations(), nil
	case "math":
		return o.Importer.Import(path)
	}
	return nil, fmt.Errorf("%s is not needed", path)
}

// durations is what constants need of package time, which takes long to check as a whole.
func durations() *types.Package {
	p := types.NewPackage("time", "time")
	name := types.NewTypeName(token.NoPos, p, "Duration", nil)
	duration := types.NewNamed(name, types.Typ[types.Int64], nil)
	p.Scope().Insert(name)
	for unit, value := range map[string]time.Duration{
		"Nanosecond": time.Nanosecond, "Microsecond": time.Microsecond, "Millisecond": time.Millisecond,
		"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour,
	} {
		p.Scope().Insert(types.NewConst(token.NoPos, p, unit, duration, constant.MakeInt64(int64(value))))
	}
	p.MarkComplete()
	return p
}

// receiver is the name of the type that a method belongs to.
func receiver(method *ast.FuncDecl) string {
	kind := method.Recv.List[0].Type
	for {
		switch k := kind.(type) {
		case *ast.StarExpr:
			kind = k.X
		case *ast.ParenExpr:
			kind = k.X
		case *ast.IndexExpr: // a type with a parameter
			kind = k.X
		case *ast.IndexListExpr: // with several
			kind = k.X
		case *ast.Ident:
			return k.Name
		default:
			return ""
		}
	}
}

// TestListingSeesWhatOthersCanUse lists a package with what is easily overlooked.
func TestListingSeesWhatOthersCanUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source := `package p

import "time"

type Color uint8

const (
	none Color = iota
	Red
	Green
)

const (
	Wait  = 3 * time.Second
	Name  = "n"
	inner = 1
)

type Set[T any] struct{ Items []T; hidden int }

func (s *Set[T]) Add(item T)  {}
func (s Set[_]) len() int     { return 0 }

type Pair[K comparable, V any] struct{}

func (p Pair[K, V]) Key() (k K) { return }

type list[T any] []T

func (l list[T]) Len() int { return 0 }
`
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"const Green Color = 2\n",
		"const Name = \"n\"\n",
		"const Red Color = 1\n",
		"const Wait time.Duration = 3000000000\n",
		"func (p Pair[K, V]) Key() (k K)\n",
		"func (s *Set[T]) Add(item T)\n",
		"type Color uint8\n",
		"type Pair[K comparable, V any] struct{}\n",
		"type Set[T any] struct {\n\tItems []T\n\t// contains filtered or unexported fields\n}\n",
	}
	if diff := cmp.Diff(want, exported(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
