package app_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"
)

const (
	module = "github.com/flagr-datar/flagr-datar"
	top    = "../.."
)

// goList runs go list in the top folder and returns the words of its output.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	return strings.Fields(strings.Join(goListLines(t, args...), "\n"))
}

func goListLines(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			stderr = exit.Stderr
		}
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestDatarKnowsNothingOfTheServerAroundIt(t *testing.T) {
	t.Parallel()
	for _, dependency := range goList(t, "-deps", "./pkg/datar") {
		for _, forbidden := range []string{"gorm.io", "github.com/go-openapi", "swagger_gen", "pkg/handler", "pkg/config"} {
			if strings.Contains(dependency, forbidden) {
				t.Errorf("pkg/datar depends on %s", dependency)
			}
		}
		standard := !strings.Contains(strings.Split(dependency, "/")[0], ".")
		if !standard && dependency != module+"/pkg/datar" && !strings.HasPrefix(dependency, "golang.org/x/sys") {
			t.Errorf("pkg/datar depends on %s, which is neither the standard library nor golang.org/x/sys", dependency)
		}
	}
}

// Applications embed evallog: it must bring nothing with it.
func TestEvallogImportsTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"evallog", "evallog/evallogtest"} {
		for _, dependency := range goList(t, "-deps", "./pkg/"+name) {
			first, _, _ := strings.Cut(dependency, "/")
			if strings.Contains(first, ".") && dependency != module+"/pkg/evallog" && dependency != module+"/pkg/"+name {
				t.Errorf("pkg/%s depends on %s", name, dependency)
			}
		}
	}
	for _, dependency := range goList(t, "-deps", "./pkg/evallog/evallogof") {
		inModule, ok := strings.CutPrefix(dependency, module+"/")
		if ok && !strings.HasPrefix(inModule, "pkg/evallog") {
			t.Errorf("pkg/evallog/evallogof depends on %s", inModule)
		}
	}
}

// Whoever imports these gets a few packages of ours, golang.org/x/sys, and nothing else.
func TestThePluginIsLight(t *testing.T) {
	t.Parallel()
	for pkg, want := range map[string][]string{
		"pkg/datar":           {"pkg/datar"},
		"pkg/datar/datarhttp": {"pkg/datar", "pkg/datar/datarhttp"},
		"pkg/datar/memstore":  {"pkg/datar", "pkg/datar/ingest", "pkg/datar/memstore"},
	} {
		var ours []string
		for _, dependency := range goList(t, "-deps", "./"+pkg) {
			inModule, isOurs := strings.CutPrefix(dependency, module+"/")
			switch {
			case isOurs:
				ours = append(ours, inModule)
			case strings.Contains(strings.Split(dependency, "/")[0], ".") && !strings.HasPrefix(dependency, "golang.org/x/sys"):
				t.Errorf("%s depends on %s", pkg, dependency)
			}
		}
		if slices.Sort(ours); !slices.Equal(ours, want) {
			t.Errorf("%s depends on %q of this module, want %q", pkg, ours, want)
		}
	}
}

// heavy are dependencies on other modules, and on net/http, that a package must not have, not even
// through others. A rule is for the packages below as well, unless these have one of their own.
var heavy = map[string][]string{
	"apidoc":        {"net/http", "gorm.io", "github.com/go-openapi"},
	"budget":        {"net/http", "gorm.io", "github.com/go-openapi"},
	"catalog":       {"net/http", "gorm.io", "github.com/go-openapi", "html/template", "text/template"}, // templates keep all exported methods in a program
	"cmd":           {"gorm.io", "github.com/go-openapi"},
	"datar":         {"github.com/go-openapi"},
	"datar/chstore": {"gorm.io", "github.com/go-openapi"},
	"etag":          {"net/http", "gorm.io", "github.com/go-openapi"},
	"fastpath":      {"gorm.io", "github.com/go-openapi"},
	"insight":       {"net/http", "github.com/go-openapi", "gorm.io/driver", "github.com/glebarez"},
	"metrics":       {"gorm.io", "github.com/go-openapi"},
	"ofrep":         {"gorm.io", "github.com/go-openapi"},
	"process":       {"net/http", "gorm.io", "github.com/go-openapi"},
	"provider":      {"github.com/go-openapi", "gorm.io/driver", "github.com/glebarez"},
	"ui":            {"github.com/go-openapi"},
	"ui/chart":      {"net/http", "gorm.io", "github.com/go-openapi"},
}

// contents are imports that show that a package contains something, by the word for it in the
// column "does not contain" of docs/architecture.md.
var contents = map[string][]string{
	"HTTP":      {"net/http"},
	"SQL":       {"gorm.io", "github.com/glebarez", "github.com/go-sql-driver", "github.com/jackc"},
	"databases": {"database/sql", "gorm.io", "github.com/glebarez", "github.com/go-sql-driver", "github.com/jackc"},
}

// names matches the names of packages in a table of docs/architecture.md.
var names = regexp.MustCompile("`([^`]+)`( and below)?")

// folders are packages by their path under pkg, each alone or with those below it.
type folders struct{ exactly, below []string }

// parseFolders reads the names in a cell of a table.
func parseFolders(cell string) (f folders) {
	for _, name := range names.FindAllStringSubmatch(cell, -1) {
		if f.exactly = append(f.exactly, name[1]); name[2] != "" {
			f.below = append(f.below, name[1])
		}
	}
	return f
}

func (f folders) have(pkg string) bool {
	return slices.Contains(f.exactly, pkg) || slices.ContainsFunc(f.below, func(folder string) bool { return strings.HasPrefix(pkg, folder+"/") })
}

// architectureTable returns the cells of the table with the header in docs/architecture.md.
func architectureTable(t *testing.T, header ...string) (rows [][]string) {
	t.Helper()
	return markdownTable(t, "docs/architecture.md", header...)
}

// markdownTable returns the cells of the table with the header in a document, which is named by its
// path from the top folder.
func markdownTable(t *testing.T, document string, header ...string) (rows [][]string) {
	t.Helper()
	_, after, ok := strings.Cut(readTop(t, document), "\n| "+strings.Join(header, " | ")+" |\n")
	if !ok {
		t.Fatalf("%s has no table with the columns %q", document, header)
	}
	for _, line := range strings.Split(after, "\n")[1:] {
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.TrimPrefix(strings.TrimSuffix(line, "|"), "|"), "|")
		if len(cells) != len(header) {
			t.Fatalf("%s: %q has %d cells, want %d", document, line, len(cells), len(header))
		}
		rows = append(rows, cells)
	}
	return rows
}

// readTop reads a file by its path from the top folder.
func readTop(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// longest returns the index of the row for a package: the one that names it, or else the one that
// names the longest folder above it and the packages below. It returns -1 if there is none.
func longest(rows []folders, pkg string) int {
	best, length := -1, -1
	for i, row := range rows {
		if slices.Contains(row.exactly, pkg) {
			return i
		}
		for _, folder := range row.below {
			if strings.HasPrefix(pkg, folder+"/") && len(folder) > length {
				best, length = i, len(folder)
			}
		}
	}
	return best
}

// ourPackage is a package under pkg, by its path there, with what it imports and depends on.
type ourPackage struct {
	name          string
	imports, deps []string
}

// listed lists all packages under pkg once, for all tests.
var listed struct {
	sync.Once
	packages []ourPackage
}

func ourPackages(t *testing.T) []ourPackage {
	t.Helper()
	listed.Do(func() {
		patterns := []string{"-f", `{{.ImportPath}}:{{join .Imports " "}}:{{join .Deps " "}}`}
		for _, folder := range goList(t, "-m", "-f", "{{.Dir}}") { // of the modules in go.work
			patterns = append(patterns, folder+"/...")
		}
		for _, line := range goListLines(t, patterns...) {
			parts := strings.Split(line, ":")
			if name, ok := strings.CutPrefix(parts[0], module+"/pkg/"); ok {
				listed.packages = append(listed.packages, ourPackage{name, strings.Fields(parts[1]), strings.Fields(parts[2])})
			}
		}
	})
	if listed.packages == nil {
		t.Fatal("the packages cannot be listed")
	}
	return listed.packages
}

func within(folder string) func(string) bool {
	return func(pkg string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }
}

// TestImportDirections checks each package under pkg against the table of docs/architecture.md.
func TestImportDirections(t *testing.T) {
	t.Parallel()
	const everything = "everything"
	table := architectureTable(t, "package", "may import")
	rows := make([]folders, len(table))
	for i, cells := range table {
		rows[i] = parseFolders(cells[0])
	}
	used := map[int]bool{}
	for _, pkg := range ourPackages(t) {
		row := longest(rows, pkg.name)
		if used[row] = true; row < 0 {
			t.Errorf("pkg/%s has no row in docs/architecture.md", pkg.name)
			continue
		}
		allowed, cell := parseFolders(table[row][1]), strings.TrimSpace(table[row][1])
		if (cell == everything) != (pkg.name == "app") || len(allowed.exactly) == 0 && cell != "nothing" && cell != everything {
			t.Errorf("docs/architecture.md: pkg/%s may import %q, want names of packages, or nothing", pkg.name, cell)
		}
		for _, imported := range pkg.imports {
			inModule, ours := strings.CutPrefix(imported, module+"/")
			if ours && cell != everything && !allowed.have(strings.TrimPrefix(inModule, "pkg/")) {
				t.Errorf("pkg/%s imports %s: docs/architecture.md allows %s", pkg.name, inModule, cell)
			}
		}
	}
	for i, cells := range table {
		if !used[i] {
			t.Errorf("docs/architecture.md has import rules for %s, and no such package exists", cells[0])
		}
	}
}

// TestImportsOfOtherModules checks what packages import of other modules against the table of
// docs/architecture.md.
func TestImportsOfOtherModules(t *testing.T) {
	t.Parallel()
	table := architectureTable(t, "package", "other modules")
	unused := map[string]bool{} // packages and modules
	allowed := map[string][]string{}
	for _, cells := range table {
		for _, pkg := range parseFolders(cells[0]).exactly {
			allowed[pkg] = parseFolders(cells[1]).exactly
			for _, other := range allowed[pkg] {
				unused[pkg+" imports "+other] = true
			}
		}
	}
	for _, pkg := range ourPackages(t) {
		for _, imported := range pkg.imports {
			first, _, _ := strings.Cut(imported, "/")
			if !strings.Contains(first, ".") || within(module)(imported) {
				continue
			}
			i := slices.IndexFunc(allowed[pkg.name], func(other string) bool { return within(other)(imported) })
			if i < 0 {
				t.Errorf("pkg/%s imports %s: docs/architecture.md allows %q", pkg.name, imported, allowed[pkg.name])
				continue
			}
			delete(unused, pkg.name+" imports "+allowed[pkg.name][i])
		}
	}
	for rule := range unused {
		t.Errorf("docs/architecture.md says that pkg/%s, and it does not", rule)
	}
}

// TestPackagesDependOnNothingHeavy checks dependencies on other modules.
func TestPackagesDependOnNothingHeavy(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, pkg := range ourPackages(t) {
		folder := pkg.name
		for heavy[folder] == nil && folder != "." {
			folder = path.Dir(folder)
		}
		used[folder] = true
		for _, forbidden := range heavy[folder] {
			if i := slices.IndexFunc(pkg.deps, within(forbidden)); i >= 0 {
				t.Errorf("pkg/%s depends on %s", pkg.name, pkg.deps[i])
			}
		}
	}
	for folder := range heavy {
		if !used[folder] {
			t.Errorf("there is no package in pkg/%s", folder)
		}
	}
}

// TestPackagesContainNothingElse checks what the table of docs/architecture.md says that packages
// do not contain, as far as imports show it: packages, and the words of contents. A word can have
// exceptions in parentheses.
func TestPackagesContainNothingElse(t *testing.T) {
	t.Parallel()
	table := architectureTable(t, "package", "contains", "does not contain")
	rows := make([]folders, len(table))
	for i, cells := range table {
		rows[i] = parseFolders(cells[0])
	}
	item := regexp.MustCompile(`[^,(]+(\([^)]*\))?`)
	for _, pkg := range ourPackages(t) {
		row := longest(rows, pkg.name)
		if row < 0 {
			t.Errorf("pkg/%s is not described in docs/architecture.md", pkg.name)
			continue
		}
		for _, not := range item.FindAllString(table[row][2], -1) {
			not, exceptions, _ := strings.Cut(strings.TrimSpace(not), "(")
			if slices.Contains(parseFolders(exceptions).exactly, path.Base(pkg.name)) {
				continue
			}
			forbidden := contents[strings.TrimSpace(not)]
			for _, name := range parseFolders(not).exactly {
				forbidden = append(forbidden, module+"/pkg/"+name, module+"/"+name)
			}
			for _, folder := range forbidden {
				if i := slices.IndexFunc(pkg.imports, within(folder)); i >= 0 {
					t.Errorf("pkg/%s imports %s: docs/architecture.md says that it does not contain %s", pkg.name, pkg.imports[i], not)
				}
			}
		}
	}
}

// Functions of pkg/insight get the time from their callers, so that the same counts give the same
// answer.
func TestOnlyCallersOfInsightReadTheClock(t *testing.T) {
	t.Parallel()
	for name, file := range sources(t) {
		if !strings.HasPrefix(name, "insight/") {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && (isCall(call, "time", "Now") || isCall(call, "time", "Since") || isCall(call, "time", "Until")) {
				t.Errorf("pkg/%s reads the clock", name)
			}
			return true
		})
	}
}

func TestOnlyTheWiringImportsApp(t *testing.T) {
	t.Parallel()
	lines := goList(t, "-f", `{{$p := .ImportPath}}{{range .Imports}}{{$p}}>{{.}}{{"\n"}}{{end}}`, "./...")
	for _, line := range lines {
		from, to, _ := strings.Cut(line, ">")
		if to == module+"/pkg/app" && from != module+"/swagger_gen/restapi" {
			t.Errorf("%s imports pkg/app", from)
		}
	}
	if !slices.Contains(lines, module+"/swagger_gen/restapi>"+module+"/pkg/app") {
		t.Error("the wiring does not import pkg/app: the test looks in the wrong place")
	}
}

// parsed is the result of parse, once for all tests.
var parsed = sync.OnceValues(parse)

// sources returns the files under pkg that are no tests, by their path under pkg. Do not change
// them.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	files, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no sources found")
	}
	return files
}

func parse() (map[string]*ast.File, error) {
	files := map[string]*ast.File{}
	root := filepath.Join(top, "pkg")
	return files, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(name)], err = parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution|parser.ParseComments)
		return err
	})
}

func TestOnlyConfigReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	readers := []string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}
	for name, file := range sources(t) {
		if strings.HasPrefix(name, "config/") || strings.HasPrefix(name, "datar/gormstore/testdb/") { // which only tests import
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if selector, ok := n.(*ast.SelectorExpr); ok && isIdent(selector.X, "os") && slices.Contains(readers, selector.Sel.Name) {
				t.Errorf("pkg/%s calls os.%s", name, selector.Sel.Name)
			}
			return true
		})
	}
}

// TestNoPackageLevelState allows package variables only where nothing can change them, or where
// nothing does: error sentinels, compiled patterns, interface assertions, embedded files, and
// tables that no code of the package writes: literals, and arrays that a function literal computes.
func TestNoPackageLevelState(t *testing.T) {
	t.Parallel()
	tables := map[string][]string{} // by folder, the variables that hold literals
	byFolder := map[string][]*ast.File{}
	for name, file := range sources(t) {
		folder := filepath.Dir(name)
		byFolder[folder] = append(byFolder[folder], file)
		for _, declaration := range file.Decls {
			g, ok := declaration.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			embedded := g.Doc != nil && strings.Contains(g.Doc.Text()+directives(g.Doc), "//go:embed")
			for _, spec := range g.Specs {
				v := spec.(*ast.ValueSpec)
				for i, ident := range v.Names {
					if ident.Name == "_" || embedded {
						continue
					}
					if i >= len(v.Values) {
						t.Errorf("pkg/%s: variable %s has no value of its own", name, ident.Name)
						continue
					}
					switch value := v.Values[i].(type) {
					case *ast.CompositeLit:
						tables[folder] = append(tables[folder], ident.Name)
					case *ast.CallExpr:
						if computesArray(value) {
							tables[folder] = append(tables[folder], ident.Name)
							continue
						}
						if !isCall(value, "errors", "New") && !isCall(value, "stderrors", "New") && !isCall(value, "regexp", "MustCompile") && !isCall(value, "strings", "NewReplacer") {
							t.Errorf("pkg/%s: variable %s holds the result of a call", name, ident.Name)
						}
					default:
						t.Errorf("pkg/%s: variable %s is not a sentinel, a pattern or a table", name, ident.Name)
					}
				}
			}
		}
	}
	for folder, names := range tables {
		for _, file := range byFolder[folder] {
			ast.Inspect(file, func(n ast.Node) bool {
				for _, written := range writtenBy(n) {
					if ident := root(written); ident != nil && slices.Contains(names, ident.Name) && !isLocal(file, ident) {
						t.Errorf("pkg/%s: table %s is written to", folder, ident.Name)
					}
				}
				return true
			})
		}
	}
}

// computesArray reports whether a call is of a function literal whose result is an array.
func computesArray(call *ast.CallExpr) bool {
	function, ok := call.Fun.(*ast.FuncLit)
	if !ok || function.Type.Results == nil || len(function.Type.Results.List) != 1 {
		return false
	}
	array, ok := function.Type.Results.List[0].Type.(*ast.ArrayType)
	return ok && array.Len != nil
}

// TestLocksShowInNames requires that a mutex is embedded in a field "mu struct { sync.Mutex; ... }"
// with what it protects. A mutex of another name protects something that is no field.
func TestLocksShowInNames(t *testing.T) {
	t.Parallel()
	protectNoField := map[string]string{
		"recorder/health.go:reporting": "the order of log lines",
		"datar/forward/keys.go:file":   "a file",
	}
	for name, file := range sources(t) {
		ast.Inspect(file, func(n ast.Node) bool {
			structure, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range structure.Fields.List {
				if !isMutex(field.Type) {
					if inner, ok := field.Type.(*ast.StructType); ok && slices.ContainsFunc(inner.Fields.List, isEmbeddedMutex) && !isIdent(field.Names[0], "mu") {
						t.Errorf("pkg/%s: the fields of a mutex are named %s, want mu", name, field.Names[0].Name)
					}
					continue
				}
				for _, ident := range field.Names {
					if protectNoField[name+":"+ident.Name] == "" {
						t.Errorf(`pkg/%s: a mutex is named %s, want mu struct { sync.Mutex; ... } around what it protects`, name, ident.Name)
					}
				}
			}
			return true
		})
	}
}

func isEmbeddedMutex(field *ast.Field) bool { return len(field.Names) == 0 && isMutex(field.Type) }

func isMutex(e ast.Expr) bool {
	selector, ok := e.(*ast.SelectorExpr)
	return ok && isIdent(selector.X, "sync") && (selector.Sel.Name == "Mutex" || selector.Sel.Name == "RWMutex")
}

// directives gives the comment's lines that Text leaves out, such as //go:embed.
func directives(comment *ast.CommentGroup) string {
	var lines []string
	for _, c := range comment.List {
		lines = append(lines, c.Text)
	}
	return strings.Join(lines, "\n")
}

// writtenBy lists the expressions that a statement assigns to, takes the address of, deletes from
// or clears.
func writtenBy(n ast.Node) []ast.Expr {
	switch n := n.(type) {
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			return n.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{n.X}
	case *ast.UnaryExpr:
		if n.Op == token.AND {
			return []ast.Expr{n.X}
		}
	case *ast.CallExpr:
		if (isIdent(n.Fun, "delete") || isIdent(n.Fun, "clear")) && len(n.Args) > 0 {
			return n.Args[:1]
		}
	}
	return nil
}

// root is the variable that an expression such as table[key].field begins with, nil if it begins
// with something else.
func root(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// isLocal reports whether the function around the identifier declares a variable of that name.
func isLocal(file *ast.File, ident *ast.Ident) bool {
	for _, declaration := range file.Decls {
		function, ok := declaration.(*ast.FuncDecl)
		if !ok || ident.Pos() < function.Pos() || ident.Pos() > function.End() {
			continue
		}
		local := false
		declares := func(e ast.Expr) { local = local || isIdent(e, ident.Name) }
		ast.Inspect(function, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok == token.DEFINE {
					for _, e := range n.Lhs {
						declares(e)
					}
				}
			case *ast.RangeStmt:
				if n.Tok == token.DEFINE {
					declares(n.Key)
					declares(n.Value)
				}
			case *ast.ValueSpec:
				for _, name := range n.Names {
					declares(name)
				}
			case *ast.Field:
				for _, name := range n.Names {
					declares(name)
				}
			}
			return true
		})
		return local
	}
	return false
}

func isIdent(e ast.Expr, name string) bool {
	ident, ok := e.(*ast.Ident)
	return ok && ident.Name == name
}

func isCall(c *ast.CallExpr, pkg, function string) bool {
	selector, ok := c.Fun.(*ast.SelectorExpr)
	return ok && isIdent(selector.X, pkg) && selector.Sel.Name == function
}

// maxFunctionLines is the most lines of a function, so that it can be read at once.
const maxFunctionLines = 80

func TestOnlyShortFunctions(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"pkg", "integration_tests"} {
		err := filepath.WalkDir(filepath.Join(top, folder), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution|parser.ParseComments)
			if err != nil || ast.IsGenerated(file) {
				return err
			}
			for _, declaration := range file.Decls {
				function, ok := declaration.(*ast.FuncDecl)
				if !ok {
					continue
				}
				if lines := files.Position(function.End()).Line - files.Position(function.Pos()).Line + 1; lines > maxFunctionLines {
					t.Errorf("%s: %s has %d lines, want at most %d", path, function.Name.Name, lines, maxFunctionLines)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Widths in characters; a tab counts as four.
const (
	maxCommentWidth  = 100
	maxDocumentWidth = 120
)

// TestCommentsAndDocumentsAreNarrow measures lines that are comments, except preformatted ones and
// outputs of examples, and lines of documents, except tables, code and definitions of links.
func TestCommentsAndDocumentsAreNarrow(t *testing.T) {
	t.Parallel()
	check := func(path string, number, most int, line string) {
		if width := utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")); width > most {
			t.Errorf("%s:%d has %d characters, want at most %d", path, number, width, most)
		}
	}
	preformatted := regexp.MustCompile(`^\s*//(\t|  |go:|nolint| Output:)`)
	listed := regexp.MustCompile(`^\s*//\s+([-*]|\d+\.) `)
	table := regexp.MustCompile(`^\s*\||^\[`)
	fence := regexp.MustCompile("^\\s*```")
	lines := func(path string) []string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(string(text), "\n")
	}
	for _, folder := range []string{"pkg", "integration_tests", "docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} {
		err := filepath.WalkDir(filepath.Join(top, folder), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil || entry.IsDir():
			case strings.HasSuffix(path, ".go") && !strings.Contains(path, "hostserver"):
				for i, line := range lines(path) {
					if strings.HasPrefix(strings.TrimSpace(line), "//") && (!preformatted.MatchString(line) || listed.MatchString(line)) {
						check(path, i+1, maxCommentWidth, line)
					}
				}
			case strings.HasSuffix(path, ".md"):
				code := false
				for i, line := range lines(path) {
					if fence.MatchString(line) {
						code = !code
					}
					if !code && !table.MatchString(line) {
						check(path, i+1, maxDocumentWidth, line)
					}
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTextsUseAmericanWords finds British spellings, and words that the project has replaced, in
// documents, in the texts of the pages, and in comments.
func TestTextsUseAmericanWords(t *testing.T) {
	t.Parallel()
	replaced := regexp.MustCompile(`^(?:doors?|nobody|centre\w*|colour\w*|behaviour\w*|neighbour\w*|favour\w*|honour\w*|labell\w*|cancell\w*|modell\w*|` +
		`licence|grey|whilst|towards|afterwards|judgement|catalogue|(?:serial|initial|normal|recogn|optim|organ|summar|minim|maxim|synchron|general|real|special|` +
		`standard|custom|author|priorit|util|visual|memor|categor|emphas)is(?:e|ed|es|ing|ation|ations))$`)
	code := regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	wrong := map[string]bool{} // by word
	check := func(name, text string) {
		text = strings.ToLower(code.ReplaceAllString(text, ""))
		for _, word := range strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) }) {
			found, known := wrong[word]
			if !known {
				found = replaced.MatchString(word)
				wrong[word] = found
			}
			if found {
				t.Errorf("%s has the word %q", name, word)
			}
		}
	}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/adr/*.md", "pkg/*/*.md", "pkg/catalog/*.txt"} {
		found, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("no file matches %s: %v", pattern, err)
		}
		for _, path := range found {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			check(path, string(text))
		}
	}
	for name, file := range sources(t) {
		for _, comment := range file.Comments {
			check("pkg/"+name, comment.Text())
		}
	}
}

// TestMetricsAreDocumented requires each name of a metric in a document.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	documents := readTop(t, "docs/operations.md") + readTop(t, "docs/datar.md") + readTop(t, "docs/recorders.md") + readTop(t, "docs/telemetry.md")
	metric := regexp.MustCompile(`^"flagr_[a-z_]+"$`)
	found := 0
	for name, file := range sources(t) {
		if dir := path.Dir(name); dir != "metrics" && dir != "datar/datarprom" {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && metric.MatchString(literal.Value) {
				if found++; !strings.Contains(documents, strings.Trim(literal.Value, `"`)) {
					t.Errorf("pkg/%s: no document has the metric %s", name, literal.Value)
				}
			}
			return true
		})
	}
	if found < 10 {
		t.Errorf("found %d metrics only", found)
	}
}
